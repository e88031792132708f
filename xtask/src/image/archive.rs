//! Bytes that depend on nothing but their contents: archives without times, owners or the order of a folder.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tar::{Builder, EntryType, Header};

/// A file in an archive.
pub(crate) struct Entry<'a> {
    pub(crate) path: &'a str,
    pub(crate) mode: u32,
    pub(crate) bytes: &'a [u8],
}

/// A tar archive (POSIX ustar) of the files in the order given: all of root, and of 1970.
pub(crate) fn tar(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for &Entry { path, mode, bytes } in entries {
        let failed = || format!("cannot put {path} into an archive");
        let mut header = Header::new_ustar();
        header.set_path(path).with_context(failed)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(u64::try_from(bytes.len()).with_context(failed)?);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, bytes).with_context(failed)?;
    }
    builder.into_inner().context("cannot end an archive")
}

/// Compressed; the header has no time and no name.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("cannot compress a layer")
}

/// JSON for people, with a newline at its end.
pub(crate) fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).context("cannot write JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a file whole or not at all.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    fs::write(part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(part, file).with_context(|| format!("cannot move {} there", file.display()))
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn archives_have_what_was_put_in_and_nothing_of_the_machine() {
        let entries = [
            Entry { path: "z", mode: 0o755, bytes: b"program" },
            Entry { path: "a/b.json", mode: 0o644, bytes: b"{}" },
        ];
        let bytes = tar(&entries).expect("an archive");
        assert_eq!(bytes, tar(&entries).expect("the same archive"));
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("its bytes");
            let header = entry.header();
            assert_eq!(header.entry_type(), EntryType::Regular);
            let numbers =
                [header.uid(), header.gid(), header.mtime()].map(|number| number.expect("a number"));
            assert_eq!(numbers, [0, 0, 0]);
            let names = [header.username(), header.groupname()].map(|name| name.expect("UTF-8"));
            assert!(names.iter().all(|name| name.is_none_or(str::is_empty)), "{names:?}");
            let path = header.path().expect("a path").display().to_string();
            found.push((path, header.mode().expect("a mode"), text));
        }
        let expected = [("z", 0o755, "program"), ("a/b.json", 0o644, "{}")];
        assert_eq!(found, expected.map(|(path, mode, text)| (path.to_owned(), mode, text.to_owned())));
    }

    /// This sum changes if anything gets into the bytes that was not put in, such as the time.
    #[test]
    fn the_bytes_are_always_the_same() {
        let bytes = tar(&[Entry { path: "a", mode: 0o755, bytes: b"a" }]).expect("an archive");
        assert_eq!(bytes.len(), 4 * 512);
        // RFC 1952, section 2.3: no flags, no time.
        assert_eq!(gzip(&bytes).expect("compressed")[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        assert_eq!(sha256(&bytes), "50ba5f5c8539978e91ab69007b560290e00391dcac7bf41c2e3118ad9a5a4a30");
    }

    #[test]
    fn sums_are_those_of_the_standard() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn files_are_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.tar");
        for text in ["one", "two"] {
            replace(&file, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&file).expect("a file"), text);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
