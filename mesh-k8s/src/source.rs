//! Which files of a directory are configuration, and how much of it is read: the same for the controller, which follows
//! the directory, and for `meshctl check --source`, which looks once.

/// Most files that are read.
pub const MAX_FILES: usize = 4096;
/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Largest sum of all files, in bytes.
pub const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// Deepest directory below the source.
pub const MAX_DEPTH: usize = 16;

/// True for names that are passed over, files and directories alike: editors' temporary files, and the directories behind
/// the symbolic links of a mounted ConfigMap.
#[must_use]
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// True for the names of files that hold YAML.
#[must_use]
pub fn is_yaml(name: &str) -> bool {
    matches!(name.rsplit_once('.'), Some((stem, "yaml" | "yml")) if !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let kept = |name: &str| !is_hidden(name) && is_yaml(name);
        for name in ["a.yaml", "a.yml", "a.b.yaml"] {
            assert!(kept(name), "{name}");
        }
        for name in ["a.txt", "yaml", ".yaml", ".a.yaml", "a.yaml~", "a.YAML", "a.yaml.swp", ""] {
            assert!(!kept(name), "{name}");
        }
    }
}
