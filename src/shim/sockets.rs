//! The sockets that are held for the command (sd_listen_fds(3)): they come with one byte after the
//! instruction (unix(7), `SCM_RIGHTS`), and go to where the command looks for them.

use crate::kernel::*;
use crate::message::{FIRST_SOCKET, LISTEN_PID, MAX_SOCKETS};
use crate::{F_DUPFD, SOCKET, Stack, fcntl, socket, sys};
use core::sync::atomic::Ordering;

/// The head of a control message, and room for the descriptors (cmsg(3)).
#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; MAX_SOCKETS],
}

const HEAD: usize = 16;

/// `struct msghdr` (recvmsg(2)), one word for each place.
type Header = [usize; 7];

/// Takes so many sockets, and puts them in their places. Afterwards ours is elsewhere.
pub fn take(count: usize, stack: Stack) -> Result<(), Errno> {
    if count > MAX_SOCKETS {
        return Err(EPROTO);
    }
    let mut all = receive(count)?;
    let first = FIRST_SOCKET as usize;
    let end = first + count;
    // Out of the way of all places, as far as anything is in one.
    let own = fcntl(socket(), F_DUPFD, end)?;
    SOCKET.store(own, Ordering::Relaxed);
    for fd in all.iter_mut().take(count) {
        if (*fd as usize) < end {
            *fd = fcntl(*fd as usize, F_DUPFD, end)? as i32;
        }
    }
    for (place, fd) in (first..).zip(all.iter().take(count)) {
        sys(nr::DUP3, [*fd as usize, place, 0, 0, 0])?;
    }
    name_process(stack);
    Ok(())
}

fn receive(count: usize) -> Result<[i32; MAX_SOCKETS], Errno> {
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    let mut byte = 0_u8;
    let vector = [&raw mut byte as usize, 1];
    let mut control =
        Control { length: 0, level: 0, kind: 0, descriptors: [-1; MAX_SOCKETS] };
    let mut header: Header = [
        0,
        0,
        vector.as_ptr() as usize,
        1,
        &raw mut control as usize,
        size_of::<Control>(),
        0,
    ];
    loop {
        let to = [socket(), header.as_mut_ptr() as usize, MSG_CMSG_CLOEXEC, 0, 0];
        match sys(nr::RECVMSG, to) {
            // The daemon is gone, and with it who would hear of it.
            Ok(0) => crate::exit(127),
            Ok(_) => break,
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let is_all = (control.level, control.kind) == (SOL_SOCKET, SCM_RIGHTS)
        && control.length == HEAD + 4 * count;
    if is_all { Ok(control.descriptors) } else { Err(EPROTO) }
}

/// Writes the number of this process to where the daemon left room for it.
fn name_process(stack: Stack) {
    let name = LISTEN_PID.as_bytes();
    let mut at = stack.envp();
    loop {
        // SAFETY: the environment in the initial stack ends with a null.
        let variable = unsafe { *at } as *mut u8;
        if variable.is_null() {
            return;
        }
        // SAFETY: it ends with a NUL, so the comparison ends there or before.
        let is_it = name.iter().enumerate().all(|(n, byte)| unsafe { *variable.add(n) } == *byte);
        if is_it {
            let mut digits = [0_u8; 10];
            let mut rest = sys(nr::GETPID, [0; 5]).unwrap_or(0);
            let mut start = digits.len();
            while rest > 0 && start > 0 {
                start -= 1;
                digits[start] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            let digits = &digits[start..];
            for (n, digit) in digits.iter().chain([&0]).enumerate() {
                // SAFETY: the daemon left room for ten digits and the NUL.
                unsafe { *variable.add(name.len() + n) = *digit };
            }
            return;
        }
        at = at.wrapping_add(1);
    }
}
