//! The text files of the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use walkdir::WalkDir;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 5] = ["target", ".git", ".cache", "node_modules", "proptest-regressions"];

/// One text file.
pub(crate) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// True for Rust sources.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// True for files that hold tests and nothing else.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Number of lines before the test module that ends the file; all lines if there is none.
    pub(crate) fn lines_before_tests(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let opens = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests") && pair[1].ends_with('{')
        };
        lines.windows(2).rposition(opens).unwrap_or(lines.len())
    }

    /// The text before the test module that ends the file.
    pub(crate) fn text_before_tests(&self) -> String {
        let lines = self.text.lines().take(self.lines_before_tests());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// All text files of the repository.
pub(crate) struct Tree {
    root: PathBuf,
    pub(crate) files: Vec<SourceFile>,
}

impl Tree {
    /// Reads every file under `root` that is UTF-8.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let ours = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_str().is_some_and(|name| SKIPPED.contains(&name))
        };
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(ours) {
            let entry = entry.context("cannot list the repository")?;
            if !entry.file_type().is_file() {
                continue;
            }
            let bytes = match std::fs::read(entry.path()) {
                Ok(bytes) => bytes,
                // Editors and other builds come and go.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", entry.path().display()));
                }
            };
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let path = entry.path().strip_prefix(root).unwrap_or_else(|_| entry.path());
            files.push(SourceFile { path: path.to_string_lossy().into_owned(), text });
        }
        Ok(Self { root: root.to_path_buf(), files })
    }

    /// The text of one file; empty if there is no such file.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.file(path).map_or("", |file| &file.text)
    }

    /// One file by its path.
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Files below a folder.
    pub(crate) fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a SourceFile> {
        self.files.iter().filter(move |file| file.path.starts_with(folder))
    }

    /// True if a file or folder of that path, relative to the root, exists.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.root.join(path).exists()
    }
}

#[cfg(test)]
impl SourceFile {
    /// A file for tests.
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

#[cfg(test)]
impl Tree {
    /// A tree for tests, of paths and texts.
    pub(crate) fn sample<const N: usize>(files: [(&str, &str); N]) -> Self {
        let files = files.map(|(path, text)| SourceFile::sample(path, text)).into();
        Self { root: PathBuf::from("nowhere"), files }
    }
}
