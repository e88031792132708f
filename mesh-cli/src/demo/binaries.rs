//! Finds the programs that the demo runs: beside meshctl itself, then on PATH. It builds nothing.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// meshctl itself.
    pub(crate) meshctl: PathBuf,
    /// The control plane.
    pub(crate) controller: PathBuf,
    /// The sidecar.
    pub(crate) proxy: PathBuf,
    /// The shop's services.
    pub(crate) shop: PathBuf,
}

/// Program and the package that makes it.
const PROGRAMS: [(&str, &str); 3] =
    [("mesh-controller", "mesh-controller"), ("mesh-proxy", "mesh-proxy"), ("shop", "shop")];

impl Binaries {
    /// Looks for all of them.
    ///
    /// # Errors
    /// Names what is missing and how to build it.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let meshctl = env::current_exe().context("cannot tell where meshctl itself is")?;
        let beside = meshctl.parent().map(Path::to_path_buf);
        let path = env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = beside.into_iter().chain(env::split_paths(&path)).collect();
        let [controller, proxy, shop] = find_in(&places)?;
        Ok(Self { meshctl, controller, proxy, shop })
    }
}

fn find_in(places: &[PathBuf]) -> anyhow::Result<[PathBuf; 3]> {
    let look = |program: &str| places.iter().map(|place| place.join(program)).find(|file| is_program(file));
    let found = PROGRAMS.map(|(program, _)| look(program));
    if let [Some(controller), Some(proxy), Some(shop)] = found {
        return Ok([controller, proxy, shop]);
    }
    let missing =
        PROGRAMS.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(program, _)| program);
    let (programs, packages): (Vec<&str>, Vec<String>) =
        missing.map(|(program, package)| (*program, format!("-p {package}"))).unzip();
    bail!(
        "the demo needs {}, neither beside meshctl nor on PATH; build with `cargo build {}`, or run `cargo xtask demo`",
        programs.join(" and "),
        packages.join(" ")
    )
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn takes_the_first_place_and_says_what_to_build() {
        let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let make = |dir: &tempfile::TempDir, name: &str, mode| {
            let file = dir.path().join(name);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let places = [first.path().to_owned(), second.path().to_owned()];
        let controller = make(&first, "mesh-controller", 0o755);
        make(&second, "mesh-controller", 0o755);
        make(&first, "shop", 0o644); // not executable
        let error = find_in(&places).unwrap_err().to_string();
        assert!(error.contains("needs mesh-proxy and shop,"), "{error}");
        assert!(error.contains("cargo build -p mesh-proxy -p shop"), "{error}");
        let (proxy, shop) = (make(&second, "mesh-proxy", 0o755), make(&second, "shop", 0o755));
        assert_eq!(find_in(&places).unwrap(), [controller, proxy, shop]);
    }
}
