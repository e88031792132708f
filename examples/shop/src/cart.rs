//! Carts over gRPC, with one streaming method. Stock is asked of inventory over TCP.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    ServiceArgs,
    cart_v1::{
        AddRequest, CartState, Line, ListRequest, WatchRequest,
        cart_server::{Cart, CartServer},
    },
    serve::{self, Shutdown},
    stats::{Stats, peer},
    stock::Stock,
};

/// Most carts; the shop is a small one.
const MAX_CARTS: usize = 1_000;
/// Most different things in a cart.
const MAX_LINES: usize = 100;
/// How long callers may take to leave after SIGTERM.
const DRAIN: Duration = Duration::from_secs(3);

/// Flags of `shop cart`.
#[derive(Args)]
pub(crate) struct CartArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Inventory, or where the sidecar listens for connections to it
    #[arg(long, value_name = "HOST:PORT", default_value = "inventory:7000")]
    inventory: String,
}

/// Runs the service until it is told to end.
///
/// # Errors
/// When an address cannot be bound.
pub(crate) async fn run(args: CartArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signal(&args.service.process)?;
    let stats = Arc::new(Stats::default());
    serve::stats(&args.service.process, Arc::clone(&stats), shutdown.clone()).await?;
    let listener = serve::bind(args.service.listen).await?;
    let carts = Arc::new(Carts {
        carts: Mutex::default(),
        changed: watch::Sender::new(()),
        stock: Stock::new(args.inventory, Arc::clone(&stats)),
        stats,
    });
    let (mut stop, mut late) = (shutdown.clone(), shutdown);
    let server = Server::builder()
        .tcp_nodelay(true)
        .add_service(CartServer::new(carts))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { stop.wait().await });
    tokio::select! {
        ended = server => ended.context("cart cannot serve")?,
        () = async { late.wait().await; tokio::time::sleep(DRAIN).await } => {}
    }
    Ok(ExitCode::SUCCESS)
}

struct Carts {
    carts: Mutex<BTreeMap<String, BTreeMap<String, u32>>>,
    changed: watch::Sender<()>,
    stock: Stock,
    stats: Arc<Stats>,
}

impl Carts {
    fn served<T>(&self, method: &str, request: Request<T>) -> T {
        let (metadata, _, message) = request.into_parts();
        self.stats.served(&format!("/shop.cart.v1.Cart/{method}"), peer(metadata.as_ref()));
        message
    }

    fn add_line(&self, customer: &str, sku: &str, quantity: u32) -> Result<(), Status> {
        let mut carts = self.carts.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |what: &str| Status::resource_exhausted(format!("too many {what}"));
        if carts.len() >= MAX_CARTS && !carts.contains_key(customer) {
            return Err(full("carts"));
        }
        let cart = carts.entry(customer.to_owned()).or_default();
        if cart.len() >= MAX_LINES && !cart.contains_key(sku) {
            return Err(full("different things in the cart"));
        }
        let line = cart.entry(sku.to_owned()).or_default();
        *line = line.saturating_add(quantity);
        Ok(())
    }

    fn state(&self, customer: &str) -> CartState {
        let carts = self.carts.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = carts.get(customer).into_iter().flatten();
        CartState {
            customer: customer.to_owned(),
            lines: lines.map(|(sku, &quantity)| Line { sku: sku.clone(), quantity }).collect(),
        }
    }
}

#[tonic::async_trait]
impl Cart for Arc<Carts> {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<CartState>, Status> {
        let AddRequest { customer, sku, quantity } = self.served("Add", request);
        if sku.is_empty() || sku.len() > 64 || sku.chars().any(char::is_control) {
            return Err(Status::invalid_argument("sku: expected 1 to 64 characters, none of them a control"));
        }
        let wanted = quantity.max(1);
        let there = self.stock.ask(&sku).await.map_err(|error| Status::unavailable(format!("{error:#}")))?;
        if there < wanted {
            return Err(Status::failed_precondition(format!("{sku}: only {there} in stock")));
        }
        self.add_line(&customer, &sku, wanted)?;
        self.changed.send_replace(());
        Ok(Response::new(self.state(&customer)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<CartState>, Status> {
        let customer = self.served("List", request).customer;
        Ok(Response::new(self.state(&customer)))
    }

    type WatchStream = ReceiverStream<Result<CartState, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { customer, max_updates } = self.served("Watch", request);
        let (sender, receiver) = mpsc::channel(4);
        let carts = Self::clone(self);
        let mut changed = self.changed.subscribe();
        tokio::spawn(async move {
            let mut sent = 0;
            // Ends when the caller leaves, also while nothing changes.
            while sender.send(Ok(carts.state(&customer))).await.is_ok() {
                sent += 1;
                if max_updates != 0 && sent >= max_updates {
                    return;
                }
                tokio::select! {
                    change = changed.changed() => if change.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
