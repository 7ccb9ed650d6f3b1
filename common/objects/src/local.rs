//! Durable writes to a local folder.
//!
//! `object_store` writes local files by a temporary file and a rename, but without fsync: after a power cut the name may
//! be there and the content not. A bundle or an XCom that a database row refers to must be there, so these writes are
//! ours: temporary file, fsync, rename, fsync of the folder.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs;
use tokio::io::AsyncWriteExt;

/// A file that nobody sees until it is published.
#[derive(Debug)]
pub(crate) struct Draft {
    file: fs::File,
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Draft {
    /// Opens a temporary file beside the target, in folders that are made if need be.
    pub(crate) async fn create(target: &Path) -> io::Result<Self> {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).await?;
        }
        let mut temporary = target.as_os_str().to_owned();
        // Listings leave out names that end in # and digits.
        temporary.push(format!("#{}", rand::random::<u64>()));
        let temporary = PathBuf::from(temporary);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .await?;
        Ok(Self {
            file,
            temporary,
            target: target.to_owned(),
            published: false,
        })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// Makes the file durable and gives it its name, in place of what may have that name.
    pub(crate) async fn publish(mut self) -> io::Result<()> {
        self.sync().await?;
        fs::rename(&self.temporary, &self.target).await?;
        self.published = true;
        sync_folder(&self.target).await
    }

    /// As [`Draft::publish`], unless something has that name already; then answers false.
    pub(crate) async fn publish_if_absent(mut self) -> io::Result<bool> {
        self.sync().await?;
        match fs::hard_link(&self.temporary, &self.target).await {
            Ok(()) => {
                sync_folder(&self.target).await?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: what stays is invisible to listings.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Makes a file's name durable.
pub(crate) async fn sync_folder(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) => fs::File::open(folder).await?.sync_all().await,
        None => Ok(()),
    }
}
