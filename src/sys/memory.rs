//! Memory that is not needed any more, and memory that another program is to read.

use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Memory that has this in it and cannot be changed any more (memfd_create(2)).
///
/// # Errors
/// What the system says.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Has all threads take their memory from one place (mallopt(3), `M_ARENA_MAX`), from then on. Files are
/// read in a thread, and what is left between the specs that are kept of it would be of use to no
/// other one. The threads that there are hardly ever allocate at the same time.
///
/// Of use before there is a second thread.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number; it may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back to the system what is not used at the moment, after something large: memory that was
/// freed (malloc_trim(3)), since reading a large configuration needs many times of what is kept of
/// it, and the allocator would keep all of it for good; and the program itself.
pub fn give_back() {
    super::clone::give_back();
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
    unmap_program();
}

/// Takes the pages of the program's code and constants out of this process. They stay in the page
/// cache, as pages of a file that others may read, and what is used next is mapped from there again;
/// what only a start or a reload needs is not ours until the next one. Nothing has to be read from a
/// disk that the system could not have made us read anyway: such pages are always its to take.
///
/// It costs a fault for each part that is used again. Breakpoints that a debugger or a tracer has put
/// into the code are lost.
fn unmap_program() {
    let segments = segments();
    let is_relocated = |segment: &Segment| {
        // SAFETY: the dynamic section is mapped for good where its header says (elf(5)), and nobody
        // writes to it after the program was loaded.
        let entries = unsafe {
            let count = segment.length / size_of::<Dynamic>();
            std::slice::from_raw_parts(segment.start as *const Dynamic, count)
        };
        entries.iter().any(Dynamic::is_of_relocated_text)
    };
    if segments.iter().filter(|s| s.kind == libc::PT_DYNAMIC).any(is_relocated) {
        return;
    }
    for (first, end) in segments.iter().filter_map(Segment::constant_pages) {
        // SAFETY: a segment that is not writable is a private mapping of a file. The linker wrote to
        // none of it: there are no relocations in it, as was looked at above, and what is made
        // read-only after them (RELRO) is in a segment that is writable. So what comes back by the
        // next fault is what was there (madvise(2), MADV_DONTNEED). A refusal, as for memory that is
        // locked, changes nothing.
        unsafe {
            libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED);
        }
    }
}

/// What a program header describes (elf(5)), where it is in memory.
struct Segment {
    kind: u32,
    flags: u32,
    start: usize,
    length: usize,
}

impl Segment {
    /// From where to where its pages are, if nobody writes to them. Whole pages, so that nothing of a
    /// neighbour is in them.
    fn constant_pages(&self) -> Option<(usize, usize)> {
        let page = rustix::param::page_size();
        let is_constant = self.kind == libc::PT_LOAD && self.flags & libc::PF_W == 0;
        let first = self.start.next_multiple_of(page);
        let end = (self.start + self.length) / page * page;
        (is_constant && first < end).then_some((first, end))
    }
}

/// Those of the program itself. Libraries are mapped by many processes.
fn segments() -> Vec<Segment> {
    let mut segments = Vec::new();
    // SAFETY: the callback is what dl_iterate_phdr(3) asks for; it is called before this returns, with
    // a pointer to what is of the type that it takes it for.
    unsafe {
        libc::dl_iterate_phdr(Some(list), (&raw mut segments).cast());
    }
    segments
}

/// The program is the first of all objects.
unsafe extern "C" fn list(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    segments: *mut libc::c_void,
) -> libc::c_int {
    /// No other one is to be shown.
    const ENOUGH: libc::c_int = 1;
    // SAFETY: dl_iterate_phdr(3): the object is there, with as many headers as it says; and `segments`
    // gives it the list, which nobody else has meanwhile.
    let (object, headers, segments) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object, headers, &mut *segments.cast::<Vec<Segment>>())
    };
    segments.extend(headers.iter().map(|header| Segment {
        kind: header.p_type,
        flags: header.p_flags,
        start: object.dlpi_addr as usize + header.p_vaddr as usize,
        length: header.p_filesz as usize,
    }));
    ENOUGH
}

/// An entry of the dynamic section (elf(5)).
#[repr(C)]
struct Dynamic {
    tag: isize,
    value: usize,
}

impl Dynamic {
    /// Whether it says that there are relocations in segments that are not writable.
    fn is_of_relocated_text(&self) -> bool {
        const TEXTREL: isize = 22;
        const FLAGS: isize = 30;
        const FLAG_TEXTREL: usize = 4;
        self.tag == TEXTREL || (self.tag == FLAGS && self.value & FLAG_TEXTREL != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Show = fn(u32) -> String;

    /// In constants that are relocated, and so in private pages that must stay.
    static RELOCATED: [(&str, Show); 2] =
        [("decimal", |n| format!("{n}")), ("hexadecimal", |n| format!("{n:x}"))];

    /// KiB of this program's own file that this process has mapped and cannot write to.
    fn mapped() -> u64 {
        let program = std::env::current_exe().unwrap();
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut ours, mut sum) = (false, 0);
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default() {
                "Rss:" if ours => sum += words.next().unwrap().parse::<u64>().unwrap(),
                range if !range.ends_with(':') => {
                    let is_constant = words.next().is_some_and(|mode| !mode.contains('w'));
                    ours = is_constant && words.last() == program.to_str();
                }
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn the_program_leaves_and_comes_back_as_it_is_used() {
        for (first, end) in segments().iter().filter_map(Segment::constant_pages) {
            for page in (first..end).step_by(rustix::param::page_size()) {
                // SAFETY: it is mapped, may be read, and is at the beginning of a page.
                unsafe { std::ptr::read_volatile(page as *const u8) };
            }
        }
        let before = mapped();
        unmap_program();
        let after = mapped();
        assert!(after < before / 2, "{before} KiB, then {after} KiB");
        let shown: Vec<_> = RELOCATED.iter().map(|(name, show)| (*name, show(255))).collect();
        assert_eq!(shown, [("decimal", "255".to_owned()), ("hexadecimal", "ff".to_owned())]);
        // Unwinding reads what was unmapped as well.
        assert!(std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(()))).is_err());
    }

    #[test]
    fn what_has_relocations_in_its_code_says_so() {
        let is_of = |tag, value| Dynamic { tag, value }.is_of_relocated_text();
        assert!(is_of(22, 0));
        assert!(is_of(30, 12));
        assert!(!is_of(30, 8));
        assert!(!is_of(1, 22));
    }
}
