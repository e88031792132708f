//! `cargo xtask fuzz`: libFuzzer on every parser, with the stable compiler and nothing installed.
//!
//! The compiler counts the edges that an input reaches in our own crates (fuzz/rustc); dependencies are those of a
//! normal build. What is found stays in the target directory: the inputs to go on from, and those that break a target.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets; none: all
    targets: Vec<String>,
    /// How long each target is run
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Only list the targets
    #[arg(long)]
    list: bool,
    /// Only run this input, as one that broke the target
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Builds the fuzzer and runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let fuzzer = Fuzzer::build(0)?;
    let all = fuzzer.targets()?;
    if args.list {
        all.iter().for_each(|target| println!("{target}"));
        return Ok(());
    }
    if let Some(unknown) = args.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target `{unknown}`, but: {}", all.join(", "));
    }
    let targets = if args.targets.is_empty() { &all } else { &args.targets };
    if let Some(input) = &args.input {
        let [target] = targets.as_slice() else { bail!("name the one target that the input is for") };
        let input = input.canonicalize().with_context(|| format!("cannot find {}", input.display()))?;
        return workspace::status(fuzzer.command(target).arg(input));
    }
    fuzzer.each(targets, args.seconds)
}

/// Every target, for so many seconds each at most. Always from the same seed and with as many inputs: what was found is to
/// be found again, and nothing else on another day.
pub(crate) fn all(seconds: u32) -> Result<()> {
    let fuzzer = Fuzzer::build(1)?;
    fuzzer.each(&fuzzer.targets()?, seconds)
}

/// Inputs of each target where all are run.
const RUNS: i32 = 20_000;

/// The program that holds all targets.
struct Fuzzer {
    program: PathBuf,
    folder: PathBuf,
    seed: u32,
}

impl Fuzzer {
    /// `seed` 0 is another one each time.
    fn build(seed: u32) -> Result<Self> {
        let target = workspace::target_directory()?;
        let args = ["build", "--locked", "--workspace", "--features", "mesh-fuzz/run", "--bin", "mesh-fuzz"];
        let mut cargo = workspace::cargo(args);
        workspace::status(cargo.env("RUSTC_WORKSPACE_WRAPPER", workspace::root().join("fuzz/rustc")))?;
        Ok(Self { program: target.join("debug/mesh-fuzz"), folder: target.join("fuzz"), seed })
    }

    fn targets(&self) -> Result<Vec<String>> {
        let list = workspace::output(Command::new(&self.program).env_remove("MESH_FUZZ"))?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("MESH_FUZZ", target).current_dir(&self.folder);
        command
    }

    fn each(&self, targets: &[String], seconds: u32) -> Result<()> {
        let mut broken = Vec::new();
        println!("{:<16}{:>12}{:>10}{:>10}", "target", "inputs", "per s", "kept");
        for target in targets {
            match self.one(target, seconds) {
                Ok(found) => println!("{target:<16}{:>12}{:>10}{:>10}", found.runs, found.rate, found.kept),
                Err(error) => {
                    println!("{target:<16}  {error:#}");
                    broken.push(target.as_str());
                }
            }
        }
        ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
        Ok(())
    }

    fn one(&self, target: &str, seconds: u32) -> Result<Found> {
        let (corpus, artifacts) = (self.folder.join("corpus").join(target), self.folder.join("broken"));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let mut command = self.command(target);
        command.env("MESH_FUZZ_SEEDS", &corpus).args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={}/{target}-", artifacts.display()),
            "-timeout=10".to_owned(),
            format!("-seed={}", self.seed),
            format!("-runs={}", if self.seed == 0 { -1 } else { RUNS }),
            "-rss_limit_mb=1024".to_owned(),
            "-print_final_stats=1".to_owned(),
        ]);
        let out = command.arg(&corpus).output().context("cannot start the fuzzer")?;
        let said = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            let lines = said.lines().filter(|line| !line.trim_start().starts_with('#'));
            bail!("failed:\n{}", lines.collect::<Vec<_>>().join("\n"));
        }
        let found = Found {
            runs: last(&said, "stat::number_of_executed_units:"),
            rate: last(&said, "stat::average_exec_per_sec:"),
            kept: fs::read_dir(&corpus)?.count(),
        };
        ensure!(found.runs > 0, "the fuzzer ran no input");
        Ok(found)
    }
}

/// What a run without a fault came to.
struct Found {
    runs: u64,
    rate: u64,
    kept: usize,
}

/// The number behind a label in what libFuzzer prints; 0 when it is not there.
fn last(said: &str, label: &str) -> u64 {
    let line = said.lines().rev().find_map(|line| line.strip_prefix(label));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn numbers_are_found() {
        let said = "#2 INITED\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     56\n";
        assert_eq!(last(said, "stat::number_of_executed_units:"), 1234);
        assert_eq!(last(said, "stat::average_exec_per_sec:"), 56);
        assert_eq!(last(said, "stat::nothing:"), 0);
    }
}
