//! A tar.gz that is written file by file; nobody else may read it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

/// An archive that is being written.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<File>>,
    /// The directory in it that everything lies in.
    root: PathBuf,
    /// Seconds since the Unix epoch.
    time: u64,
    pub(super) files: usize,
}

impl Archive {
    /// Begins one; a file that is there is not overwritten.
    pub(super) fn create(path: &Path, time: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Self { tar, root: PathBuf::from("mesh-support"), time, files: 0 })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        self.files += 1;
        self.tar.append_data(&mut header, self.root.join(safe(name)), content)
    }

    /// Ends it.
    pub(super) fn finish(self) -> io::Result<()> {
        self.tar.into_inner()?.finish()?.sync_all()
    }
}

/// Names come from a cluster: none leads out of the archive.
fn safe(name: &str) -> PathBuf {
    let good = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let part = |part: &str| part.trim_start_matches('.').chars().map(good).collect::<String>();
    name.split('/').map(part).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_added_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let mut archive = Archive::create(&path, 1).unwrap();
        archive.add("pods/../../etc/pass wd", b"text").unwrap();
        archive.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("mesh-support/pods/etc/pass_wd"));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert!(Archive::create(&path, 1).is_err());
    }
}
