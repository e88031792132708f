//! Both ends of the bench: applications with fixed answers, and clients that keep them busy.
//!
//! One thread each, and as little work per request as it goes, for what is measured is between them. A client says
//! `ready` on standard output once all its connections were answered, starts at a line on standard input, prints what it
//! saw as one line of JSON, and keeps its connections until standard input ends: see [`gate`].
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks on the terminal")]

mod descriptors;
mod drive;
mod gate;
mod grpc;
mod http1;
mod outcome;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::drive::{Target, grpc as calls, hold, http, paced, tcp};

/// Applications and clients for measuring what stands between them.
#[derive(Parser)]
#[command(name = "load", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP/1.1, gRPC and TCP on ports of this address, and print the ports as JSON.
    Serve {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1")]
        address: IpAddr,
    },
    /// Keep connections busy with HTTP/1.1 requests, one after the other on each.
    Http {
        #[command(flatten)]
        target: Target,
        /// Bytes of each response's body
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
    },
    /// Send HTTP/1.1 requests at a fixed rate, whether or not the earlier ones were answered in time.
    Paced {
        #[command(flatten)]
        target: Target,
        /// Bytes of each response's body
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
        /// Requests a second, over all connections
        #[arg(long)]
        rate: f64,
    },
    /// Keep connections busy with gRPC calls.
    Grpc {
        #[command(flatten)]
        target: Target,
        /// One stream a connection, whose messages go to and fro, instead of a call for each message
        #[arg(long)]
        streaming: bool,
        /// Bytes of each message of the server
        #[arg(long, default_value_t = 64)]
        bytes: u32,
        /// Calls at a time on each connection
        #[arg(long, default_value_t = 1)]
        calls: usize,
    },
    /// Make one gRPC call that no policy lets pass, and fail if it passes.
    Refused {
        #[command(flatten)]
        target: Target,
    },
    /// Move bytes over TCP in one direction.
    Tcp {
        #[command(flatten)]
        target: Target,
        /// From the client to the server, instead of the other way
        #[arg(long)]
        up: bool,
    },
    /// Open one TCP connection after the other, with a few bytes to and fro on each.
    Connect {
        #[command(flatten)]
        target: Target,
    },
    /// Open connections, exchange something small on each, hold them idle, and exchange again at the start.
    Hold {
        #[command(flatten)]
        target: Target,
        /// Addresses to connect from, in turn
        #[arg(long, value_delimiter = ',')]
        from: Vec<IpAddr>,
        /// Bytes to and fro over TCP, instead of HTTP/1.1 requests
        #[arg(long)]
        opaque: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    descriptors::raise();
    if let Command::Paced { target, bytes, rate } = command {
        return paced::run(&target, bytes, rate);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot make a runtime")?.block_on(async {
        match command {
            Command::Serve { address } => serve::run(address).await,
            Command::Http { target, bytes } => http::run(&target, bytes).await,
            Command::Grpc { target, streaming, bytes, calls } => {
                calls::run(&target, streaming, bytes, calls).await
            }
            Command::Refused { target } => calls::run_refused(&target).await,
            Command::Tcp { target, up: true } => tcp::run_up(&target).await,
            Command::Tcp { target, up: false } => tcp::run_down(&target).await,
            Command::Connect { target } => tcp::run_connect(&target).await,
            Command::Hold { target, from, opaque } => hold::run(&target, &from, opaque).await,
            Command::Paced { .. } => unreachable!("it has threads of its own"),
        }
    })
}

/// A duration in seconds, as an argument.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// An address, as an argument.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not IP:PORT"))
}
