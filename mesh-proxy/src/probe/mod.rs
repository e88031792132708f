//! The application's probes and hooks, which somebody outside of the mesh leaves to the proxy: performed as they were
//! declared, from beside the application, at the address at which it would have been asked.
//!
//! `declared` reads them; `http` and `grpc` ask. *Invariant:* only what was declared is asked, whoever asks for it: a
//! path names a probe, and nothing of a request but its user agent gets any further. The health port is open to everybody:
//! what keeps others from asking is that names begin with a nonce of the pod, which no answer and no log tells.

mod declared;
mod grpc;
mod http;
mod quiet;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ::http::HeaderValue;
use tokio::{net::TcpStream, time::timeout};

use self::http::Get;
use crate::{
    net::own::{self, To},
    telemetry::Telemetry,
};

/// What paths of probes begin with.
pub(crate) const PATH: &str = "/probe/";

/// All probes, by what follows [`PATH`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes(Arc<HashMap<String, Probe>>);

/// One probe or hook.
#[derive(Debug)]
struct Probe {
    address: SocketAddr,
    within: Duration,
    /// A hook runs once; what is answered does not count, but that it can be asked.
    is_hook: bool,
    /// What is asked; or why it cannot be.
    kind: Result<Kind, String>,
}

#[derive(Debug)]
enum Kind {
    /// GET: a status from 200 to 399 is good, with a body that does not break off.
    Http(Get),
    /// A connection stands.
    Tcp,
    /// `grpc.health.v1.Health/Check` of this service; empty: of the whole server.
    Grpc(String),
    /// Nobody calls the application any more, or so much time is over.
    Quiet(Duration),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The application is well, or the hook was heard.
    Good,
    /// It is not, for this reason.
    Bad(String),
    /// The hook was not heard: whoever asks must find no answer, for an answer of any status would be good.
    Broken(String),
}

impl Probes {
    /// Reads what stands in MESH_PROBES. The application is asked at `ip`.
    ///
    /// # Errors
    /// When it is no JSON of that shape. A probe that cannot be performed is no error here: it fails.
    pub(crate) fn parse(json: &str, ip: IpAddr) -> Result<Self, String> {
        declared::read(json, ip).map(|probes| Self(Arc::new(probes)))
    }

    /// Performs a probe; None: there is none of that name. `agent`: what asks for it.
    pub(crate) async fn perform(
        &self,
        key: &str,
        agent: Option<&HeaderValue>,
        telemetry: &Telemetry,
    ) -> Option<Verdict> {
        let probe = self.0.get(key)?;
        let done = match timeout(probe.within, probe.perform(agent, telemetry)).await {
            Ok(done) => done,
            Err(_) => Err(format!("{} did not answer within {:?}", probe.address, probe.within)),
        };
        Some(match (done, probe.is_hook) {
            (Ok(()), _) => Verdict::Good,
            (Err(why), false) => Verdict::Bad(why),
            (Err(why), true) => Verdict::Broken(why),
        })
    }
}

impl Probe {
    async fn perform(&self, agent: Option<&HeaderValue>, telemetry: &Telemetry) -> Result<(), String> {
        match self.kind.as_ref().map_err(Clone::clone)? {
            Kind::Http(get) => self.judge(http::ask(self.address, get, agent).await?).await,
            Kind::Tcp => connect(self.address).await.map(drop),
            Kind::Grpc(service) => grpc::ask(self.address, service, agent).await,
            Kind::Quiet(at_most) => {
                quiet::wait(telemetry, *at_most).await;
                Ok(())
            }
        }
    }

    /// Judges an answer as kubelet does: a body that breaks off makes a probe fail. A hook has been heard, and lasts until
    /// its answer ends.
    async fn judge(&self, answer: http::Answer) -> Result<(), String> {
        let status = answer.status();
        if self.is_hook {
            if !answer.is_long() {
                let _heard = answer.read().await;
            }
            return Ok(());
        }
        answer.read().await.map_err(|why| format!("{}: {why}", self.address))?;
        match status {
            200..400 => Ok(()),
            status => Err(format!("{} answered with status {status}", self.address)),
        }
    }
}

/// What may be told of a probe's name: the container and what it is, without the nonce.
pub(crate) fn name(key: &str) -> &str {
    key.rmatch_indices('/').nth(1).and_then(|(at, _)| key.get(at + 1..)).unwrap_or(key)
}

/// Connects to the application, past the firewall's rules.
async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    own::connect(address, To::Other).await.map_err(|error| format!("cannot connect to {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_told_without_their_nonce() {
        for (key, told) in [("a1b2/app/pre-stop", "app/pre-stop"), ("app/pre-stop", "app/pre-stop"), ("", "")]
        {
            assert_eq!(name(key), told);
        }
    }
}
