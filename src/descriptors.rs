//! Descriptors that pass between processes: those that the service manager starts an edge with, and those that one edge
//! hands to the next.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// Descriptors of one message at most. The kernel takes 253 (`SCM_MAX_FD`).
pub const MAX_IN_MESSAGE: usize = 64;

/// Sends bytes with descriptors over a Unix socket (`SCM_RIGHTS` of unix(7)).
pub fn send(socket: &impl AsRawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent < bytes.len() { Err(ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// Receives what one call of [`send`] has sent. No child process inherits the descriptors.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IN_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(ErrorKind::InvalidData, "a message is too long"));
    }
    Ok((received.bytes, descriptors))
}

/// Takes a descriptor that this process was started with, by its number. A number alone is no owned descriptor, and to
/// call it one is unsafe; sent over a socket it arrives as one.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    let (near, far) = UnixStream::pair()?;
    send(&near, b"d", &[number])?;
    let (_, mut received) = receive(&far, &mut [0])?;
    let adopted = received.pop().ok_or(ErrorKind::InvalidData)?;
    nix::unistd::close(number)?;
    Ok(adopted)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn descriptors_arrive_as_what_they_are_and_in_their_order() {
        let (near, far) = UnixStream::pair().unwrap();
        let files: Vec<File> = (0..MAX_IN_MESSAGE)
            .map(|number| {
                let mut file = tempfile::tempfile().unwrap();
                write!(file, "{number}").unwrap();
                file
            })
            .collect();
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        send(&near, b"all of them", &numbers).unwrap();
        drop(files);
        let mut buffer = [0; 64];
        let (length, received) = receive(&far, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], received.len()), (&b"all of them"[..], MAX_IN_MESSAGE));
        for (number, descriptor) in received.into_iter().enumerate() {
            let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no child inherits it");
            let (mut file, mut content) = (File::from(descriptor), String::new());
            file.rewind().unwrap();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, number.to_string());
        }
        drop(near);
        assert_eq!(receive(&far, &mut buffer).unwrap().0, 0, "the other end is closed");
    }

    #[test]
    fn a_number_is_taken_and_what_is_no_descriptor_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        let number = file.into_raw_fd();
        let (mut file, mut content) = (File::from(adopt(number).unwrap()), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "kept");
        assert!(adopt(1 << 20).is_err());
        assert!(adopt(-1).is_err());
    }
}
