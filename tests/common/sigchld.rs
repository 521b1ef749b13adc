//! What a daemon does before it starts a thread, for tests that have its backend in their own process.

/// Before main: the thread of a test is not the first one.
#[used]
// SAFETY: what is called stands on nothing that main would have to set up.
#[unsafe(link_section = ".init_array")]
static BLOCK: extern "C" fn() = {
    extern "C" fn block() {
        provost::sys::sigchld::block();
    }
    block
};
