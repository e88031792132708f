//! Directories as editors, links and mounts leave them.

use super::*;

fn names(files: &Files) -> Vec<&str> {
    files.keys().map(AsRef::as_ref).collect()
}

#[test]
fn finds_yaml_files_and_notices_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, text) in [("b.yaml", "b"), ("sub/a.yml", "a"), ("notes.txt", "no"), (".b.yaml.swp", "no")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut scanner = Scanner::new(dir.path().to_owned());
    assert_eq!(names(&scanner.scan().unwrap()), ["b.yaml", "sub/a.yml"]);
    assert_eq!(scanner.scan(), None);

    fs::write(dir.path().join("b.yaml"), "c").unwrap();
    assert_eq!(scanner.scan().unwrap()["b.yaml"], Content::Text("c".into()), "same size, same second");
    fs::write(dir.path().join("new"), "d").unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("b.yaml")).unwrap();
    assert_eq!(scanner.scan().unwrap()["b.yaml"], Content::Text("d".into()), "replaced by rename");
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    assert_eq!(scanner.scan(), None, "it may come back");
    std::thread::sleep(scanner.again().unwrap());
    assert_eq!(names(&scanner.scan().unwrap()), ["sub/a.yml"]);
}

#[test]
fn an_empty_file_is_taken_for_half_written_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "text").unwrap();
    let mut scanner = Scanner::new(dir.path().to_owned());
    scanner.scan().unwrap();
    fs::write(&file, "").unwrap();
    assert_eq!(scanner.scan(), None);
    std::thread::sleep(HALF_WRITTEN + Duration::from_millis(50));
    assert_eq!(scanner.scan().unwrap()["a.yaml"], Content::Text("".into()));
}

#[test]
fn links_are_followed_and_circles_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for version in ["..1", "..2"] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("a.yaml"), version).unwrap();
    }
    std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    std::os::unix::fs::symlink(".", root.join("circle")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling.yaml")).unwrap();
    let mut scanner = Scanner::new(root.to_owned());
    let files = scanner.scan().unwrap();
    assert_eq!(names(&files), ["a.yaml"]);
    assert_eq!(files["a.yaml"], Content::Text("..1".into()));
    std::os::unix::fs::symlink("..2", root.join("..next")).unwrap();
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    assert_eq!(scanner.scan().unwrap()["a.yaml"], Content::Text("..2".into()), "swapped link");
}

#[test]
fn what_cannot_be_read_says_so_and_a_missing_directory_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("source");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("bytes.yaml"), [0xff, 0xfe]).unwrap();
    fs::write(root.join("big.yaml"), vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
    let mut scanner = Scanner::new(root.clone());
    let files = scanner.scan().unwrap();
    assert!(files.values().all(|content| matches!(content, Content::Unreadable(_))), "{files:?}");
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(scanner.scan(), None);
}

#[test]
fn a_file_that_is_deleted_and_made_again_was_never_gone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "old").unwrap();
    let mut scanner = Scanner::new(dir.path().to_owned());
    scanner.scan().unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(scanner.scan(), None);
    fs::File::create(&file).unwrap();
    assert_eq!(scanner.scan(), None, "made, not yet written");
    fs::write(&file, "new").unwrap();
    assert_eq!(scanner.scan().unwrap()["a.yaml"], Content::Text("new".into()));
    assert_eq!(scanner.again(), None);
    // A new name is no deletion that waits, and neither is another directory in its place.
    fs::rename(&file, dir.path().join("b.yaml")).unwrap();
    assert_eq!(names(&scanner.scan().unwrap()), ["b.yaml"]);
    let (other, old) = (dir.path().join("other"), dir.path().join("old"));
    let root = dir.path().join("root");
    for (path, name) in [(&root, "c.yaml"), (&other, "d.yaml")] {
        fs::create_dir(path).unwrap();
        fs::write(path.join(name), name).unwrap();
    }
    let mut scanner = Scanner::new(root.clone());
    scanner.scan().unwrap();
    fs::rename(&root, old).unwrap();
    fs::rename(other, &root).unwrap();
    assert_eq!(names(&scanner.scan().unwrap()), ["d.yaml"]);
}

#[test]
fn what_cannot_be_looked_at_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (sub, link) = (dir.path().join("sub"), dir.path().join("link.yaml"));
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("a.yaml"), "a").unwrap();
    fs::write(&link, "b").unwrap();
    let mut scanner = Scanner::new(dir.path().to_owned());
    assert_eq!(names(&scanner.scan().unwrap()), ["link.yaml", "sub/a.yaml"]);
    // Links that lead to themselves fail with another error than NotFound, for root too.
    fs::remove_dir_all(&sub).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("sub", &sub).unwrap();
    std::os::unix::fs::symlink("link.yaml", &link).unwrap();
    for _ in 0..2 {
        let files = scanner.scan().unwrap_or_else(|| {
            scanner.seen.iter().map(|(name, (_, content))| (Arc::clone(name), content.clone())).collect()
        });
        for name in ["link.yaml", "sub/a.yaml"] {
            assert!(matches!(files[name], Content::Unreadable(_)), "{files:?}");
        }
        std::thread::sleep(REPLACING + Duration::from_millis(50));
    }
    fs::remove_file(&sub).unwrap();
    fs::remove_file(&link).unwrap();
    scanner.scan();
    std::thread::sleep(REPLACING + Duration::from_millis(50));
    assert_eq!(scanner.scan().unwrap(), Files::new(), "now it is");
}

#[test]
fn files_over_the_limit_are_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("z.yaml"), "z").unwrap();
    let mut scanner = Scanner::new(dir.path().to_owned());
    scanner.scan().unwrap();
    for i in 0..=MAX_FILES + 5 {
        fs::write(dir.path().join(format!("a{i}.yaml")), "").unwrap();
    }
    let files = scanner.scan().unwrap();
    assert!(matches!(files["z.yaml"], Content::Unreadable(_)));
    std::thread::sleep(REPLACING + Duration::from_millis(50));
    scanner.scan();
    assert!(matches!(scanner.seen["z.yaml"].1, Content::Unreadable(_)));
}
