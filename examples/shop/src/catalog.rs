//! What the shop sells. Two versions run side by side, so that traffic can be split between them.

use std::{process::ExitCode, sync::Arc};

use clap::{Args, ValueEnum};
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;

use crate::{
    ServiceArgs,
    serve::{self, Shutdown, json},
    stats::{Stats, peer},
};

/// Flags of `shop catalog`.
#[derive(Args)]
pub(crate) struct CatalogArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Which version this one is
    #[arg(long, value_enum)]
    version: Version,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    V1,
    V2,
}

/// What is for sale: sku, name, price in cents.
const ITEMS: [(&str, &str, u32); 4] = [
    ("tea-1", "Green tea", 450),
    ("tea-2", "Black tea", 390),
    ("cup-1", "Tea cup", 1200),
    ("pot-1", "Tea pot", 3400),
];

#[derive(Serialize)]
struct Catalog {
    version: &'static str,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    sku: &'static str,
    name: &'static str,
    /// Cents.
    price: u32,
    /// New in v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// Runs the service until it is told to end.
///
/// # Errors
/// When an address cannot be bound.
pub(crate) async fn run(args: CatalogArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signal(&args.service.process)?;
    let stats = Arc::new(Stats::default());
    serve::stats(&args.service.process, Arc::clone(&stats), shutdown.clone()).await?;
    let listener = serve::bind(args.service.listen).await?;
    let version = args.version;
    serve::http(listener, shutdown, move |request| {
        let answer = answer(version, &request, &stats);
        async move { answer }
    })
    .await;
    Ok(ExitCode::SUCCESS)
}

fn answer<B>(
    version: Version,
    request: &Request<B>,
    stats: &Stats,
) -> Response<http_body_util::Full<bytes::Bytes>> {
    let peer = peer(request.headers());
    let path = request.uri().path();
    if request.method() != Method::GET {
        stats.served("other", peer);
        return json(StatusCode::METHOD_NOT_ALLOWED, &"GET only");
    }
    match path.strip_prefix("/items") {
        Some("" | "/") => {
            stats.served("/items", peer);
            json(StatusCode::OK, &catalog(version, |_| true))
        }
        Some(sku) => {
            stats.served("/items/SKU", peer);
            let found = catalog(version, |item| Some(item) == sku.strip_prefix('/'));
            let status = if found.items.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
            json(status, &found)
        }
        None => {
            stats.served("other", peer);
            json(StatusCode::NOT_FOUND, &"see /items")
        }
    }
}

fn catalog(version: Version, wanted: impl Fn(&str) -> bool) -> Catalog {
    let (name, note) = match version {
        Version::V1 => ("v1", None),
        Version::V2 => ("v2", Some("ships tomorrow")),
    };
    let items = ITEMS
        .iter()
        .filter(|(sku, ..)| wanted(sku))
        .map(|&(sku, name, price)| Item { sku, name, price, note })
        .collect();
    Catalog { version: name, items }
}
