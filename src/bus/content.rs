//! Files that callers hand over as descriptors.

use super::errors::{Error, Result};
use zbus::OwnedFd;

/// The largest file that is read through a descriptor: the limit of a configuration file.
const MAX_CONFIG: u64 = 16 * 1024 * 1024;

/// Reads the file behind a descriptor from its beginning. Only of a regular file (a memfd is one):
/// any other can keep a reader waiting for ever.
pub(super) async fn read_config(descriptor: OwnedFd) -> Result<Vec<u8>> {
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(descriptor));
    let read = move || {
        use std::io::{Read, Seek};
        let metadata = file.metadata().map_err(|error| Error::invalid(error.to_string()))?;
        if !metadata.is_file() {
            return Err(Error::invalid("the configuration must be a regular file or a memfd"));
        }
        let mut file = file;
        let mut content = Vec::new();
        file.rewind().and_then(|()| file.take(MAX_CONFIG + 1).read_to_end(&mut content)).map_err(
            |error| Error::invalid(format!("the configuration cannot be read: {error}")),
        )?;
        if content.len() as u64 > MAX_CONFIG {
            return Err(Error::invalid("the configuration is larger than 16 MiB"));
        }
        Ok(content)
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| Error::failed(error.to_string()))?
}
