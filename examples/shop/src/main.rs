//! `shop`: a small shop of real services, one subcommand each, and a load generator.
//!
//! `load` → `storefront` (HTTP) → `catalog` v1 or v2 (HTTP) and `cart` (gRPC) → `inventory` (lines over TCP).
//! `batch` calls `cart` too, and may not. No service knows of TLS or policy: all of that is the mesh's.

mod batch;
mod cart;
mod catalog;
mod client;
mod inventory;
mod load;
mod serve;
mod stats;
mod stock;
mod storefront;

use std::{net::SocketAddr, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// The generated code of `shop.cart.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code"
)]
mod cart_v1 {
    include!(concat!(env!("OUT_DIR"), "/shop.cart.v1.rs"));
}

/// Services of the example shop, and load for them.
#[derive(Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pages over HTTP/1.1: GET /, /product/ID and /watch
    Storefront(storefront::StorefrontArgs),
    /// What the shop sells, over HTTP/1.1
    Catalog(catalog::CatalogArgs),
    /// Carts, over gRPC
    Cart(cart::CartArgs),
    /// What is in stock, over TCP: "GET sku" is answered with "OK n"
    Inventory(inventory::InventoryArgs),
    /// A job that reads carts, which it may not do; prints the answer it got as JSON
    Batch(batch::BatchArgs),
    /// Loads a target with GET requests; prints a summary as JSON
    Load(load::LoadArgs),
}

/// What every service takes.
#[derive(Args, Clone)]
pub(crate) struct ServiceArgs {
    /// Address of the service itself, where its sidecar hands it what callers send
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    process: ProcessArgs,
}

/// What every subcommand takes.
#[derive(Args, Clone)]
pub(crate) struct ProcessArgs {
    /// Address of GET /stats: exact counts, as JSON
    #[arg(long)]
    stats: Option<SocketAddr>,
    /// End when standard input ends, so that nothing outlives whoever started it
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Storefront(args) => storefront::run(args).await,
        Command::Catalog(args) => catalog::run(args).await,
        Command::Cart(args) => cart::run(args).await,
        Command::Inventory(args) => inventory::run(args).await,
        Command::Batch(args) => batch::run(args).await,
        Command::Load(args) => load::run(args).await,
    }
}
