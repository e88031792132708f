//! Files with places to fill, written as `@name@`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Writes a template with each `@name@` replaced; all names must be known.
pub(super) fn write(file: &Path, template: &str, values: &[(&str, &str)]) -> Result<()> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    ensure!(!text.contains('@'), "{} would have a place that nobody filled:\n{text}", file.display());
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_places_are_filled() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        write(&file, "a: @a@, @b@, @a@\n", &[("a", "1"), ("b", "2")]).expect("a file");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "a: 1, 2, 1\n");
        assert!(write(&file, "@c@", &[("a", "1")]).is_err());
    }
}
