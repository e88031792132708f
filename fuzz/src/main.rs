//! The fuzzer: libFuzzer with all targets in one program. `MESH_FUZZ` names the one that is run, and `MESH_FUZZ_SEEDS`
//! a folder for its first inputs; without a name the targets are listed.
#![no_main]
#![expect(clippy::print_stdout, reason = "a tool for developers that talks on the terminal")]

use std::{env, fs, path::PathBuf, process, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::{Target, targets};

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some((_, check, _)) = TARGET.get() {
        check(data);
    }
});

fn choose() {
    let Ok(wanted) = env::var("MESH_FUZZ") else {
        targets().iter().for_each(|(name, ..)| println!("{name}"));
        process::exit(0);
    };
    let Some(target) = targets().into_iter().find(|(name, ..)| *name == wanted) else {
        println!("there is no target {wanted}");
        process::exit(2);
    };
    if let Some(folder) = env::var_os("MESH_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in (target.2)().iter().enumerate() {
            if let Err(error) = fs::write(folder.join(format!("seed-{number}")), seed) {
                println!("cannot write seeds to {}: {error}", folder.display());
                process::exit(2);
            }
        }
    }
    let _ = TARGET.set(target);
}
