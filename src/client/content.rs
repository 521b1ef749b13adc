//! A file to be sent to the daemon, which reads regular files only: a pipe could keep it waiting.

use super::error::ClientError;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// The descriptor itself, or where it is no regular file, all that can be read from it.
pub async fn regular(content: OwnedFd) -> Result<OwnedFd, ClientError> {
    let failed = |source| ClientError::Io { what: "reading the configuration".into(), source };
    let copied = tokio::task::spawn_blocking(move || copy(content)).await;
    copied.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

fn copy(content: OwnedFd) -> io::Result<OwnedFd> {
    let mut content = File::from(content);
    if content.metadata()?.is_file() {
        return Ok(content.into());
    }
    let mut copy = File::from(rustix::fs::memfd_create("provost-config", MemfdFlags::CLOEXEC)?);
    io::copy(&mut content, &mut copy)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"processes: {}").unwrap();
        drop(writer);
        let mut copied = File::from(copy(reader.into()).unwrap());
        let mut text = String::new();
        copied.rewind().unwrap();
        copied.read_to_string(&mut text).unwrap();
        assert_eq!(text, "processes: {}");
    }
}
