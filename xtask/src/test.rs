//! `cargo xtask test`: everything that must hold, in one command.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::stages::Stages;
use crate::{e2e, fuzz, helm, lab, soak, tidy, workspace};

/// How long each fuzz target is run.
const FUZZ_SECONDS: u32 = 1;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also check formatting and lints, and fail if any test cannot run on this machine.
    #[arg(long)]
    ci: bool,
    /// Also start a real Kubernetes, as root, see that it works and leaves nothing, and the mesh in it from install to
    /// uninstall (docs/lab.md).
    #[arg(long)]
    with_lab: bool,
    /// Given to `cargo test` as they are, for example -p mesh-core, or part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the stages in order; the first that fails ends the run.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut stages = Stages::default();
    let result = run_stages(args, &mut stages);
    stages.print();
    println!("{}", result?);
    Ok(())
}

fn run_stages(args: &Args, stages: &mut Stages) -> Result<Counts> {
    let missing = missing_means();
    if args.ci && !missing.is_empty() {
        bail!("with --ci every test must be able to run, but: {}", missing.join("; "));
    }
    missing.into_iter().for_each(|what| stages.leave_out(what));
    if args.with_lab {
        lab::check::missing().context("with --with-lab the lab must be able to run")?;
    } else {
        let lacks = lab::check::missing().err().map(|error| format!(", but first: {error:#}"));
        stages.leave_out(format!(
            "the lab, a real Kubernetes: run with --with-lab{}",
            lacks.unwrap_or_default()
        ));
    }

    if args.ci {
        stages.run("format", || workspace::status(&mut workspace::cargo(["fmt", "--all", "--check"])))?;
    } else {
        stages.leave_out("format and lints: run with --ci to check them".to_owned());
    }
    stages.run("tidy", tidy::run)?;
    if args.ci {
        let lint = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        stages.run("lints", || workspace::status(&mut workspace::cargo(lint)))?;
    }
    let build = ["build", "--workspace", "--bins", "--locked"];
    stages.run("binaries", || workspace::status(&mut workspace::cargo(build)))?;
    // Without Go it has been left out already.
    let helm = if workspace::on_path("go") { stages.run("helm", helm::build) } else { helm::place() };
    let helm = match helm {
        Err(error) if !args.ci => {
            stages.leave_out(format!("the chart against Helm: {error:#}"));
            None
        }
        other => Some(other?),
    };
    let counts = stages.run("tests", || cargo_test(args, helm.as_deref()))?;
    if counts.passed == 0 {
        bail!("no test ran: does anything match `{}`?", args.args.join(" "));
    }
    if args.ci {
        stages.run("soak", soak::smoke_apart)?;
        stages.run("fuzz", || fuzz::all(FUZZ_SECONDS))?;
    } else {
        stages.leave_out(
            "fuzz targets and the soak: run with --ci, or `cargo xtask fuzz` and `soak --smoke`".to_owned(),
        );
    }
    if args.with_lab {
        lab::check::run(stages)?;
        e2e::all(stages)?;
    }
    Ok(counts)
}

/// What this machine lacks for some of the tests, with what would help.
fn missing_means() -> Vec<String> {
    let mut missing = Vec::new();
    let root = workspace::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root {
        missing.push("tests in network namespaces: they need root".to_owned());
    } else if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
        missing.push("tests in network namespaces: this kernel or container refuses `unshare -n`".to_owned());
    }
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("openssl", "openssl"), ("c++", "g++"), ("go", "golang-go")]
    {
        if !workspace::on_path(program) {
            missing.push(format!("tests that need `{program}`: install the package {package}"));
        }
    }
    missing
}

/// Sums over all test binaries.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    binaries: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { binaries, passed, failed, ignored } = self;
        write!(f, "{passed} tests passed, {failed} failed, {ignored} ignored, in {binaries} binaries")
    }
}

impl Counts {
    /// Adds a line like `test result: ok. 12 passed; 0 failed; 0 ignored; ...`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.binaries += 1;
        for part in numbers.split(';') {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Runs the tests, passing on what they print and adding up their results.
fn cargo_test(args: &Args, helm: Option<&Path>) -> Result<Counts> {
    let mut command = workspace::cargo(["test", "--locked", "--no-fail-fast"]);
    if !args.args.iter().any(|arg| arg == "-p" || arg == "--package") {
        command.arg("--workspace");
    }
    command.args(&args.args);
    if let Some(helm) = helm {
        command.env("MESH_HELM", helm);
    }
    if args.ci {
        // Tests that cannot run leave themselves out loudly; with this they fail.
        command.env("CI", "true");
    }
    let text = workspace::describe(&command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{text}`"))?;
    let mut counts = Counts::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.with_context(|| format!("cannot read what `{text}` prints"))?;
            counts.add(&line);
            println!("{line}");
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed ({status}): {counts}");
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_results() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
        );
        counts.add(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        counts.add("test works ... ok");
        assert_eq!(counts, Counts { binaries: 2, passed: 15, failed: 2, ignored: 1 });
    }
}
