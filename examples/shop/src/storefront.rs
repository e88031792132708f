//! The shop's pages. For every page it asks catalog over HTTP and cart over gRPC, both through its own sidecar.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use mesh_core::reason::REASON_HEADER;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tonic::transport::{Channel, Endpoint};

use crate::{
    ServiceArgs,
    cart_v1::{AddRequest, CartState, ListRequest, WatchRequest, cart_client::CartClient},
    client::Client,
    serve::{self, Shutdown, json},
    stats::{Stats, peer},
};

/// How long a call to another service may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `shop storefront`.
#[derive(Args)]
pub(crate) struct StorefrontArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Where the sidecar takes outbound HTTP and gRPC; the host says who is meant. Without it, hosts are connected to
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// Where to connect for the cart instead: without names it is another address
    #[arg(long, hide = true, value_name = "HOST:PORT")]
    cart_proxy: Option<String>,
    /// Host of the catalog
    #[arg(long, default_value = "catalog")]
    catalog: String,
    /// Host of the cart
    #[arg(long, default_value = "cart:7070")]
    cart: String,
}

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Page {
    /// All things, and the customer's cart.
    Front,
    /// One thing, which goes into the cart.
    Product(String),
    /// One thing goes into the cart while the cart is watched.
    Watch,
}

#[derive(Serialize)]
struct Body {
    page: &'static str,
    catalog_version: String,
    catalog: Box<RawValue>,
    /// Things in the customer's cart.
    in_cart: u64,
    /// Messages of the watched cart.
    #[serde(skip_serializing_if = "Option::is_none")]
    updates: Option<usize>,
}

struct Storefront {
    http: Client,
    catalog: String,
    cart: CartClient<Channel>,
    stats: Arc<Stats>,
}

/// Runs the service until it is told to end.
///
/// # Errors
/// When an address cannot be bound.
pub(crate) async fn run(args: StorefrontArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signal(&args.service.process)?;
    let stats = Arc::new(Stats::default());
    serve::stats(&args.service.process, Arc::clone(&stats), shutdown.clone()).await?;
    let listener = serve::bind(args.service.listen).await?;
    let origin: Uri = format!("http://{}", args.cart).parse().context("--cart is no host")?;
    let cart_at = args.cart_proxy.as_ref().or(args.proxy.as_ref()).unwrap_or(&args.cart);
    let catalog_at = args.proxy.clone().unwrap_or_else(|| with_port(&args.catalog));
    let channel =
        Endpoint::from_shared(format!("http://{cart_at}"))?.origin(origin).tcp_nodelay(true).connect_lazy();
    let storefront = Arc::new(Storefront {
        http: Client::new(catalog_at, TIMEOUT),
        catalog: args.catalog,
        cart: CartClient::new(channel),
        stats,
    });
    serve::http(listener, shutdown, move |request| {
        let storefront = Arc::clone(&storefront);
        async move { storefront.answer(&request).await }
    })
    .await;
    Ok(ExitCode::SUCCESS)
}

impl Storefront {
    async fn answer<B>(&self, request: &Request<B>) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        let peer = peer(request.headers());
        let page = Page::of(request.method(), request.uri().path());
        self.stats.served(page.as_ref().map_or("other", Page::pattern), peer);
        let Some(page) = page else {
            return json(StatusCode::NOT_FOUND, &"see /, /product/ID and /watch");
        };
        match self.page(&page).await {
            Ok(body) => json(StatusCode::OK, &body),
            Err(error) => {
                let error = format!("{error:#}");
                json(StatusCode::BAD_GATEWAY, &Value::from_iter([("error", error)]))
            }
        }
    }

    async fn page(&self, page: &Page) -> anyhow::Result<Body> {
        let customer = format!("guest-{}", fastrand::u8(..));
        let (path, sku) = match page {
            Page::Front => ("/items".to_owned(), "tea-1"),
            Page::Product(sku) => (format!("/items/{sku}"), sku.as_str()),
            Page::Watch => ("/items/cup-1".to_owned(), "cup-1"),
        };
        let (version, catalog) = self.catalog(&path).await?;
        let (cart, updates) = match page {
            Page::Front => (self.list(customer).await?, None),
            Page::Product(_) => (self.add(customer, sku).await?, None),
            Page::Watch => self.watch(customer, sku).await.map(|(cart, updates)| (cart, Some(updates)))?,
        };
        let in_cart = cart.lines.iter().map(|line| u64::from(line.quantity)).sum();
        Ok(Body { page: page.pattern(), catalog_version: version, catalog, in_cart, updates })
    }

    async fn catalog(&self, path: &str) -> anyhow::Result<(String, Box<RawValue>)> {
        let answer = self.ask_catalog(path).await;
        self.stats.called("catalog", answer.is_ok());
        answer.context("catalog")
    }

    async fn ask_catalog(&self, path: &str) -> anyhow::Result<(String, Box<RawValue>)> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: String,
        }
        let answer = self.http.get(&self.catalog, path).await?;
        if !answer.status.is_success() {
            bail!("status {}{}", answer.status, reason(&answer.headers));
        }
        let Versioned { version } =
            serde_json::from_slice(&answer.body).context("no catalog in the answer")?;
        Ok((version, serde_json::from_slice(&answer.body)?))
    }

    async fn list(&self, customer: String) -> anyhow::Result<CartState> {
        let answer = self.cart.clone().list(ListRequest { customer }).await;
        self.called_cart(answer.map(tonic::Response::into_inner))
    }

    async fn add(&self, customer: String, sku: &str) -> anyhow::Result<CartState> {
        let answer = self.cart.clone().add(AddRequest { customer, sku: sku.to_owned(), quantity: 1 }).await;
        self.called_cart(answer.map(tonic::Response::into_inner))
    }

    /// Watches the cart: one message at once, one after something was put into it.
    async fn watch(&self, customer: String, sku: &str) -> anyhow::Result<(CartState, usize)> {
        let request = WatchRequest { customer: customer.clone(), max_updates: 2 };
        let stream = self.cart.clone().watch(request).await;
        let (mut seen, mut last) = (0, CartState::default());
        let watched = async {
            let mut stream = stream?.into_inner();
            while let Some(state) = stream.message().await? {
                seen += 1;
                last = state;
                if seen == 1
                    && let Err(error) = self.add(customer.clone(), sku).await
                {
                    return Err(tonic::Status::aborted(format!("{error:#}")));
                }
            }
            Ok(())
        };
        let watched = watched.await;
        self.called_cart(watched)?;
        Ok((last, seen))
    }

    fn called_cart<T>(&self, answer: Result<T, tonic::Status>) -> anyhow::Result<T> {
        self.stats.called("cart", answer.is_ok());
        answer.map_err(|status| {
            let reason = reason(status.metadata().as_ref());
            anyhow::anyhow!("cart: {:?}: {}{reason}", status.code(), status.message())
        })
    }
}

impl Page {
    fn of(method: &Method, path: &str) -> Option<Self> {
        let word = |sku: &str| sku.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match path {
            _ if method != Method::GET => None,
            "/" => Some(Self::Front),
            "/watch" => Some(Self::Watch),
            _ => {
                let sku = path.strip_prefix("/product/").filter(|sku| (1..=32).contains(&sku.len()))?;
                word(sku).then(|| Self::Product(sku.to_owned()))
            }
        }
    }

    fn pattern(&self) -> &'static str {
        match self {
            Self::Front => "/",
            Self::Product(_) => "/product/ID",
            Self::Watch => "/watch",
        }
    }
}

/// The place that a host of HTTP names: port 80, unless it says otherwise.
fn with_port(host: &str) -> String {
    if host.contains(':') { host.to_owned() } else { format!("{host}:80") }
}

/// Why the mesh refused, when it did.
fn reason(headers: &HeaderMap) -> String {
    let code = headers.get(REASON_HEADER).and_then(|value| value.to_str().ok());
    code.map(|code| format!(" ({REASON_HEADER}: {code})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_pages() {
        let page = |path| Page::of(&Method::GET, path);
        assert_eq!(page("/"), Some(Page::Front));
        assert_eq!(page("/product/tea-1"), Some(Page::Product("tea-1".into())));
        assert_eq!(page("/watch"), Some(Page::Watch));
        for other in ["/product/", "/product/a/b", "/product/a%0ab", "/favicon.ico"] {
            assert_eq!(page(other), None, "{other}");
        }
        assert_eq!(Page::of(&Method::POST, "/"), None);
    }
}
