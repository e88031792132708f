//! The binaries: linked with all they need, and the same wherever they are built.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Recipe, elf};
use crate::workspace;

/// Between flags in CARGO_ENCODED_RUSTFLAGS.
const SEPARATOR: &str = "\u{1f}";
/// Links glibc in: all that is built and tested is of that target, and Rust's one for musl would have to be installed.
pub(super) const STATIC: &str = "-Ctarget-feature=+crt-static";

/// A binary that was built.
pub(super) struct Binary {
    /// As images call it.
    pub(super) architecture: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// The target for images of this machine's architecture. It is always named to cargo, for flags must not reach
/// procedural macros, which cannot be static.
pub(super) fn target() -> Result<&'static str> {
    Ok(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "x86_64-unknown-linux-gnu",
        ("linux", "aarch64") => "aarch64-unknown-linux-gnu",
        (os, arch) => bail!("images are built on Linux, on x86_64 or aarch64, and this is {os} on {arch}"),
    })
}

/// Builds the binaries of the recipes. All packages are always named: which of them are, decides on features of what they
/// share, and with that on the bytes.
pub(super) fn build(
    target: &str,
    profile: &str,
    packages: &[&str],
    recipes: &[&Recipe],
) -> Result<Vec<Binary>> {
    let root = workspace::target_directory()?;
    let mut cargo = workspace::cargo(["build", "--locked", "--target", target, "--profile", profile]);
    cargo.args(packages.iter().flat_map(|package| ["-p", package]));
    cargo.args(recipes.iter().flat_map(|recipe| ["--bin", recipe.binary]));
    set_flags(&mut cargo, target, &root)?;
    workspace::status(&mut cargo)?;
    let folder = root.join(target).join(if profile == "dev" { "debug" } else { profile });
    recipes.iter().map(|recipe| read(&folder.join(recipe.binary))).collect()
}

/// Reads a binary and checks that it can run in an empty image.
fn read(file: &Path) -> Result<Binary> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let architecture = elf::architecture_of_static(&bytes)
        .with_context(|| format!("{} cannot be put into an image", file.display()))?;
    Ok(Binary { architecture, bytes })
}

/// Static, and without names of this machine's folders or the time, which mimalloc's C code asks its compiler for.
fn set_flags(cargo: &mut Command, target: &str, target_directory: &Path) -> Result<()> {
    let mut rust = vec![STATIC.to_owned()];
    let mut c = Vec::new();
    for (folder, name) in folders(target_directory)? {
        let text = folder.to_str().context("the path of a folder of sources is not UTF-8")?;
        ensure!(
            !text.contains([' ', '\t', '=']),
            "the path {text} has a blank or `=`, which C compilers take for the end of a name: build elsewhere"
        );
        rust.push(format!("--remap-path-prefix={text}={name}"));
        c.push(format!("-ffile-prefix-map={text}={name}"));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust.join(SEPARATOR)).env_remove("RUSTFLAGS");
    cargo.env(format!("CFLAGS_{}", target.replace('-', "_")), c.join(" ")).env_remove("CFLAGS");
    cargo.env("CARGO_INCREMENTAL", "0").env("SOURCE_DATE_EPOCH", "0");
    Ok(())
}

/// Folders of sources, and what they are called in the binaries. Of those that a file is in, the last one counts.
fn folders(target_directory: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")))
        .context("no folder of cargo: set CARGO_HOME")?;
    let registries = home.join("registry").join("src");
    let mut found = vec![(workspace::root(), "/mesh"), (target_directory.to_path_buf(), "/mesh/target")];
    // Each is named after where crates come from, which is the machine's own affair.
    let entries =
        fs::read_dir(&registries).with_context(|| format!("cannot read {}", registries.display()))?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<OsString>>>()?;
    names.sort();
    found.extend(names.into_iter().map(|name| (registries.join(name), "/crates")));
    Ok(found)
}
