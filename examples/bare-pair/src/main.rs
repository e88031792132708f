//! The bench's yardstick: the least that two proxies with mutual TLS between them must do.
//!
//! hyper, tokio-rustls and mimalloc on one thread, put together as anyone would, and nothing of a mesh: one fixed
//! upstream, no routes, no policy, no counters, no limits, no drain. What our proxies cost beyond this pair is what the
//! mesh costs.

mod h1;
mod h2;
mod tcp;
mod tls;

use std::{future::Future, net::SocketAddr, path::PathBuf, pin::Pin, rc::Rc};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One proxy of the pair: outbound takes plaintext and dials TLS, inbound takes TLS and dials plaintext
#[derive(Parser)]
struct Args {
    /// Which side of the pair this is
    role: Role,
    /// What is carried
    #[arg(long)]
    mode: Mode,
    /// Where to accept
    #[arg(long)]
    listen: SocketAddr,
    /// Where all of it goes
    #[arg(long)]
    to: SocketAddr,
    /// Own certificate, PEM
    #[arg(long)]
    cert: PathBuf,
    /// Its key, PEM
    #[arg(long)]
    key: PathBuf,
    /// Roots that both sides trust, PEM
    #[arg(long)]
    roots: PathBuf,
    /// SPIFFE ID that the other side must have
    #[arg(long)]
    peer: String,
    /// Outbound: protocol to offer (ALPN), for another side that asks for one
    #[arg(long)]
    alpn: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Outbound,
    Inbound,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// HTTP/1.1 all the way
    H1,
    /// HTTP/1.1 outside, HTTP/2 between the two
    H1h2,
    /// HTTP/2 all the way, as gRPC needs it
    H2,
    /// Bytes
    Tcp,
}

/// What one accepted connection is served with.
#[derive(Clone)]
enum Serve {
    H1(Rc<dyn Forward>),
    H2(Rc<dyn Forward>),
    Tcp,
}

/// A response under way.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Incoming>>>>>;

/// Where requests go.
trait Forward {
    /// Sends one on.
    fn forward(self: Rc<Self>, request: Request<Incoming>) -> Answer;
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = runtime::Builder::new_current_thread().enable_all().build_local(<_>::default())?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.context("cannot listen")?;
    let tls = Rc::new(tls::Tls::load(&args.cert, &args.key, &args.roots, args.peer, args.alpn)?);
    let dial = Rc::new(Dial { to: args.to, tls: (args.role == Role::Outbound).then(|| Rc::clone(&tls)) });
    let serve = match (args.mode, args.role) {
        (Mode::H1, _) => Serve::H1(Rc::new(h1::Pool::new(Rc::clone(&dial)))),
        (Mode::H1h2, Role::Outbound) => Serve::H1(Rc::new(h2::Shared::new(Rc::clone(&dial)))),
        (Mode::H1h2, Role::Inbound) => Serve::H2(Rc::new(h1::Pool::new(Rc::clone(&dial)))),
        (Mode::H2, _) => Serve::H2(Rc::new(h2::Shared::new(Rc::clone(&dial)))),
        (Mode::Tcp, _) => Serve::Tcp,
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (serve, dial) = (serve.clone(), Rc::clone(&dial));
        let tls = (args.role == Role::Inbound).then(|| Rc::clone(&tls));
        tokio::task::spawn_local(async move {
            // What breaks ends; the load tells of it.
            let _ = connection(stream, tls, serve, &dial).await;
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<Rc<tls::Tls>>, serve: Serve, dial: &Dial) -> Result<()> {
    let stream = match tls {
        Some(tls) => tls.accept(stream).await?,
        None => tls::Stream::Plain(stream),
    };
    match serve {
        Serve::H1(forward) => h1::serve(stream, forward).await,
        Serve::H2(forward) => h2::serve(stream, forward).await,
        Serve::Tcp => tcp::carry(stream, dial.connect().await?).await,
    }
}

/// Where a proxy connects to, and how.
struct Dial {
    to: SocketAddr,
    tls: Option<Rc<tls::Tls>>,
}

impl Dial {
    async fn connect(&self) -> Result<tls::Stream> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => tls.connect(stream, self.to.ip()).await,
            None => Ok(tls::Stream::Plain(stream)),
        }
    }
}
