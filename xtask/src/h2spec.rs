//! `cargo xtask h2spec`: how well HTTP/2 is kept through both sidecars, against how well the server alone keeps it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

/// The module of h2spec at the version that is used (2.2.1 is older than Go modules).
const MODULE: &str = "github.com/summerwind/h2spec";
const VERSION: &str = "v2.2.1+incompatible";

/// Builds h2spec and the servers, runs one against the others, and fails when the sidecars add a failure.
pub(crate) fn run() -> Result<()> {
    let folder = workspace::target_directory()?.join("h2spec");
    let tool = build(&folder)?;
    let mut servers = Servers::start()?;
    let (alone, through) = (servers.alone, servers.through);
    let alone = judge(&tool, &folder, alone)?;
    let through = judge(&tool, &folder, through)?;
    servers.stop()?;
    println!("                 cases  failed");
    for (name, verdict) in [("server alone", &alone), ("both sidecars", &through)] {
        println!("{name:<16}{:>6}{:>8}", verdict.cases, verdict.failed.len());
    }
    ensure!(alone.cases > 100 && alone.cases == through.cases, "h2spec did not run all of its cases");
    for case in &through.failed {
        println!("through both sidecars: {case}");
    }
    let added: Vec<_> = through.failed.difference(&alone.failed).collect();
    ensure!(added.is_empty(), "the sidecars add {} failures: {added:#?}", added.len());
    Ok(())
}

/// Builds the tool, once.
fn build(folder: &Path) -> Result<PathBuf> {
    let tool = folder.join("h2spec");
    if tool.is_file() {
        return Ok(tool);
    }
    fs::create_dir_all(folder)?;
    fs::write(
        folder.join("go.mod"),
        format!("module h2spec.local\n\ngo 1.18\n\nrequire {MODULE} {VERSION}\n"),
    )?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=mod", "-o", "h2spec", &format!("{MODULE}/cmd/h2spec")]).current_dir(folder);
    workspace::status(&mut go)
        .context("h2spec is a Go program: install Go, and let it reach a module proxy")?;
    Ok(tool)
}

/// The running example; ends with its standard input.
struct Servers {
    process: Child,
    alone: SocketAddr,
    through: SocketAddr,
}

impl Servers {
    fn start() -> Result<Self> {
        let mut command =
            workspace::cargo(["run", "--quiet", "--locked", "-p", "mesh-proxy", "--example", "h2spec"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut line)?;
        let Some((alone, through)) = line.trim_end().split_once(' ') else {
            bail!("the servers did not start");
        };
        Ok(Self { alone: alone.parse()?, through: through.parse()?, process })
    }

    fn stop(&mut self) -> Result<()> {
        drop(self.process.stdin.take());
        self.process.wait()?;
        Ok(())
    }
}

/// What h2spec says about one server.
struct Verdict {
    cases: usize,
    failed: BTreeSet<String>,
}

fn judge(tool: &Path, folder: &Path, server: SocketAddr) -> Result<Verdict> {
    let report = folder.join(format!("{server}.xml"));
    let mut command = Command::new(tool);
    command
        .args(["-h", &server.ip().to_string(), "-p", &server.port().to_string(), "-o", "5", "-j"])
        .arg(&report);
    // It fails when a case does; the report says which.
    command.stdout(Stdio::null()).status().with_context(|| format!("cannot start {}", tool.display()))?;
    read(&fs::read_to_string(&report).with_context(|| format!("no report {}", report.display()))?)
}

/// Reads a JUnit report.
fn read(report: &str) -> Result<Verdict> {
    let mut verdict = Verdict { cases: 0, failed: BTreeSet::new() };
    for case in report.split("<testcase ").skip(1) {
        let attribute = |name: &str| {
            let (_, rest) = case.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let (Some(section), Some(title)) = (attribute("package"), attribute("classname")) else {
            bail!("a test case without a name: {case:.200}");
        };
        verdict.cases += 1;
        if case.contains("<failure") || case.contains("<error") {
            verdict.failed.insert(format!("{section}: {title}"));
        }
    }
    Ok(verdict)
}
