//! Programs compiled as images' binaries are, and as they are not.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::binaries::{self, STATIC};
use super::super::sbom::rustc;
use super::*;
use crate::workspace;

/// Compiles a program.
fn compile(source: &str, program: &Path, flags: &[&str]) {
    let target = binaries::target().expect("a target");
    let file = program.with_extension("rs");
    fs::write(&file, source).expect("written");
    let mut rustc = Command::new(rustc());
    rustc.args(["--edition", "2024", "--target", target]).args(flags).arg("-o").arg(program).arg(&file);
    workspace::output(&mut rustc).expect("it compiles");
}

#[test]
fn static_programs_are_told_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |flags: &[&str]| {
        let program = folder.path().join("program");
        compile("fn main() {}", &program, flags);
        architecture_of_static(&fs::read(&program).expect("a program")).map_err(|error| error.to_string())
    };
    let expected = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(check(&[STATIC]).as_deref(), Ok(expected));
    assert_eq!(check(&[STATIC, "-Crelocation-model=static"]).as_deref(), Ok(expected));
    let error = check(&[]).expect_err("dynamic");
    assert!(error.starts_with("not static"), "{error}");
    let library = check(&["--crate-type=cdylib"]).expect_err("a library");
    assert!(library.starts_with("not static"), "{library}");
    let text = architecture_of_static(b"#!/bin/sh\n").expect_err("a script");
    assert_eq!(text.to_string(), "not an ELF file");
}

/// What is looked up by the C library (the proxy: its controller; the controller: hosts of ExternalServices) is found
/// without any file of that library: since version 2.34 glibc has in itself what it had to load before.
#[test]
fn a_static_program_finds_hosts_in_an_empty_root() {
    let lacks = ["unshare", "ip"].into_iter().find(|program| !workspace::on_path(program));
    let works = || Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    if lacks.is_some() || !works() {
        let why =
            lacks.map_or_else(|| "it needs root".to_owned(), |program| format!("there is no {program}"));
        eprintln!("LEFT OUT: a_static_program_finds_hosts_in_an_empty_root: {why}");
        assert!(std::env::var_os("CI").is_none(), "with CI every test must run: {why}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (program, root) = (folder.path().join("resolve"), folder.path().join("root"));
    compile(include_str!("resolve.rs"), &program, &[STATIC]);
    fs::create_dir_all(root.join("etc")).expect("a folder");
    fs::write(root.join("etc/hosts"), "192.0.2.1 controller.in-hosts\n").expect("written");
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").expect("written");
    let mut inside = Command::new("unshare");
    inside.args(["-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$1\""]).arg(&program).arg(&root);
    let found = workspace::output(&mut inside).expect("it runs");
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 2, "{found}");
    assert!(lines[0].starts_with("controller.in-hosts [192.0.2.1"), "{found}");
    assert!(lines[1].starts_with("controller.in-dns [192.0.2.7"), "{found}");
}
