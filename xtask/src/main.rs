//! The project's own commands: `cargo xtask test`, `demo`, `tidy`, `fuzz`, `bench`, `scale`, `soak`, `h2spec`, `helm`, `lab`, `image`, `e2e`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers that talks on the terminal"
)]

mod bench;
mod demo;
mod e2e;
mod fuzz;
mod h2spec;
mod helm;
mod image;
mod lab;
mod page;
mod scale;
mod soak;
mod stages;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for working on the mesh.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all tests.
    Test(test::Args),
    /// Build the mesh and run its demo: `meshctl demo ARGS`.
    Demo(demo::Args),
    /// Check sizes, crate arrows, dependencies, licences and documents.
    Tidy,
    /// Run the fuzzer on parsers (needs a C++ compiler)
    Fuzz(fuzz::Args),
    /// Run h2spec against a server alone and behind both sidecars (needs Go).
    H2spec,
    /// Build Helm, with which the chart is compared (needs Go).
    Helm,
    /// Measure CPU, latency and memory of two sidecars, against others and against a bare pair.
    Bench(bench::Args),
    /// Measure the memory of thousands of idle connections.
    Scale(scale::Args),
    /// Run mixed load under changes of everything, and see that nothing fails and no process grows.
    Soak(soak::Args),
    /// Run a real Kubernetes of one or two nodes on this machine (needs root).
    Lab(lab::Args),
    /// Test the whole mesh on a real cluster, from install to uninstall (needs root, or a cluster of yours).
    E2e(e2e::Args),
    /// Build container images without a container engine, and lists of what is in them.
    Image(image::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Tidy => tidy::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::H2spec => h2spec::run(),
        Command::Helm => helm::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Image(args) => image::run(&args),
        Command::E2e(args) => e2e::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
