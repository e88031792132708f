//! The mesh of the demo: controller, sidecars and services, from their start to their end.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, bail};
use mesh_core::ports;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    binaries::Binaries,
    children::{Children, SIDECAR, still_listening},
    counts::{App, Batch, Counts, Load},
    http,
    layout::{self, Break, CART, CATALOG_V1, CATALOG_V2, INVENTORY, MEMBERS, Member, Net, STATS, STOREFRONT},
    metrics::ProxyCounts,
    namespaces::{self, Namespaces},
    watchdog,
    workdir::WorkDir,
};
use crate::{
    ctx::Target,
    view::{Client, ViewError},
};

/// How long anything may take to get ready.
const READY: Duration = Duration::from_secs(10);
/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How long counters may take to settle after the last request.
const SETTLE: Duration = Duration::from_secs(4);
/// How long a sidecar may take for a drain; the applications are gone by then.
const DRAIN: &str = "2s";
/// The shop's namespace.
pub(crate) const NAMESPACE: &str = "shop";

/// What the controller says about itself when it is ready.
#[derive(Debug, Deserialize)]
struct ControllerFile {
    control: String,
    view: String,
}

/// The running mesh.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Addresses.
    pub(crate) net: Net,
    /// Files.
    pub(crate) dir: WorkDir,
    binaries: Binaries,
    children: Children,
    broken: Option<Break>,
    view: Option<Client>,
}

impl Stage {
    /// Prepares addresses and files. Nothing of the mesh runs yet.
    ///
    /// # Errors
    /// When no addresses are free or files cannot be written.
    pub(crate) fn new(
        binaries: Binaries,
        dir: WorkDir,
        broken: Option<Break>,
        transparent: bool,
    ) -> anyhow::Result<Self> {
        let net = if transparent { Net::Namespaces } else { Net::claim()? };
        let source = dir.source();
        fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
        for (name, text) in layout::yaml(&net, broken) {
            fs::write(source.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        let remove = (!dir.keep).then_some(dir.path());
        let mut children = Children::new(&binaries.meshctl, dir.path().join("logs"), remove)?;
        if transparent {
            // Without its own namespace the broken load goes around its sidecar.
            let without = (broken == Some(Break::Mtls)).then_some(layout::LOAD);
            children.stand_in(Namespaces::new(&net, &binaries.proxy)?, without);
        }
        Ok(Self { net, dir, binaries, children, broken, view: None })
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// Says what did not get ready, and why.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let controller = self.start_controller().await?;
        for member in MEMBERS {
            self.start_sidecar(member, &controller.control)?;
        }
        self.start_apps()?;
        for member in MEMBERS {
            self.ready(member).await?;
        }
        self.children.all_ready();
        self.view = Some(self.connect_view(&controller.view).await?);
        Ok(())
    }

    async fn start_controller(&mut self) -> anyhow::Result<ControllerFile> {
        let at = |port| self.net.controller(port).to_string();
        let flags = [
            ("--source", self.dir.source().display().to_string()),
            ("--data-dir", self.dir.state().display().to_string()),
            ("--listen", at(ports::CONTROL)),
            ("--view", at(ports::VIEW)),
            ("--health", at(ports::CONTROLLER_HEALTH)),
        ];
        self.children.start("controller", &self.binaries.controller, &arguments(&["run"], &flags))?;
        let file = self.dir.state().join("controller.json");
        let deadline = Instant::now() + READY;
        loop {
            self.children.all_run()?;
            if let Ok(text) = fs::read_to_string(&file)
                && let Ok(controller) = serde_json::from_str(&text)
            {
                return Ok(controller);
            }
            if Instant::now() > deadline {
                self.children.blame("controller");
                bail!("the controller was not ready within {READY:?}");
            }
            sleep(LOOK).await;
        }
    }

    fn start_sidecar(&mut self, member: Member, controller: &str) -> anyhow::Result<()> {
        let state = self.dir.state();
        let token = state.join("tokens").join(NAMESPACE).join(member.account);
        let [mode, how] = if self.net.is_transparent() {
            [("--mode", "transparent".to_owned()), ("--mark", namespaces::MARK.to_owned())]
        } else {
            [("--mode", "explicit".to_owned()), ("--address", self.net.ip(member))]
        };
        let flags = [
            mode,
            how,
            ("--workload", format!("{NAMESPACE}/{}", member.name)),
            ("--controller", controller.to_owned()),
            ("--token-file", token.display().to_string()),
            ("--trust-bundle", state.join("trust-bundle.pem").display().to_string()),
            ("--workers", "1".to_owned()),
            ("--drain-timeout", DRAIN.to_owned()),
        ];
        self.children.start(&sidecar(member), &self.binaries.proxy, &arguments(&["run"], &flags))
    }

    fn start_apps(&mut self) -> anyhow::Result<()> {
        self.start_app(INVENTORY, "inventory", Vec::new())?;
        self.start_app(CART, "cart", self.net.cart_calls())?;
        self.start_app(CATALOG_V1, "catalog", vec![("--version", "v1".to_owned())])?;
        self.start_app(CATALOG_V2, "catalog", vec![("--version", "v2".to_owned())])?;
        self.start_app(STOREFRONT, "storefront", self.net.storefront_calls())
    }

    fn start_app(
        &mut self,
        member: Member,
        command: &str,
        more: Vec<(&'static str, String)>,
    ) -> anyhow::Result<()> {
        let listen = self.net.app(member).context("it serves something")?;
        let stats = self.net.at(member, STATS);
        let flags = [("--listen", listen.to_string()), ("--stats", stats.to_string())];
        let flags: Vec<_> = flags.into_iter().chain(more).collect();
        let mut args = arguments(&[command], &flags);
        args.push("--exit-with-parent".to_owned());
        self.children.start(member.name, &self.binaries.shop, &args)
    }

    /// Waits for a sidecar and the application behind it.
    async fn ready(&mut self, member: Member) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            self.children.all_run()?;
            let sidecar = http::get(self.net.at(member, ports::HEALTH), "/ready").await;
            let app = !member.is_service() || http::get(self.net.at(member, STATS), "/stats").await.is_ok();
            let said = match sidecar {
                Ok((200, _)) if app => return Ok(()),
                Ok((200, _)) => format!("{} itself does not listen", member.name),
                Ok((status, text)) => format!("its sidecar says {status} {}", text.trim()),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                self.children.blame(&self::sidecar(member));
                bail!("{} was not ready within {READY:?}: {said}", member.name);
            }
            sleep(LOOK).await;
        }
    }

    async fn connect_view(&self, address: &str) -> anyhow::Result<Client> {
        let token_file = self.dir.state().join("view-token");
        let token = fs::read_to_string(&token_file).context("cannot read the controller's view-token")?;
        let token = token.trim().to_owned();
        let target = Target {
            address: address.to_owned(),
            authority: address.to_owned(),
            token,
            token_file,
            timeout: Duration::from_secs(3),
        };
        Ok(Client::connect(target).await?)
    }

    /// The controller's view.
    ///
    /// # Errors
    /// When nothing was started.
    pub(crate) fn view(&mut self) -> anyhow::Result<&mut Client> {
        self.view.as_mut().context("the demo has not started")
    }

    /// The file of a workload's network namespace, when it has one of its own.
    pub(crate) fn namespace(&self, member: Member) -> Option<String> {
        self.children.namespaces().and_then(|all| all.path(member.name))
    }

    /// What explains the last error, if anything does.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.children.last_words()
    }

    /// An error when something ended by itself.
    ///
    /// # Errors
    /// That is its purpose.
    pub(crate) fn all_run(&mut self) -> anyhow::Result<()> {
        self.children.all_run()
    }

    /// Flags of `shop load` that are always the same.
    fn load_flags(&self, rate: u32) -> Vec<(&'static str, String)> {
        let mut flags = self.net.load_calls(self.broken);
        flags.push(("--rate", rate.to_string()));
        flags
    }

    /// Sends `count` requests and returns what the generator of load counted.
    ///
    /// # Errors
    /// When it cannot be run or says nothing.
    pub(crate) async fn load(&mut self, count: u64, rate: u32) -> anyhow::Result<Load> {
        let mut flags = self.load_flags(rate);
        flags.push(("--count", count.to_string()));
        self.job("load", &arguments(&["load"], &flags)).await
    }

    /// Starts load that goes on until the end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start_load(&mut self, rate: u32) -> anyhow::Result<()> {
        let mut flags = self.load_flags(rate);
        flags.push(("--duration", "1000000".to_owned()));
        let mut args = arguments(&["load"], &flags);
        args.push("--exit-with-parent".to_owned());
        self.children.start("load", &self.binaries.shop, &args)
    }

    /// Runs the job that may not read carts, and returns what it was told.
    ///
    /// # Errors
    /// When it cannot be run or got no answer.
    pub(crate) async fn batch(&mut self) -> anyhow::Result<Batch> {
        let flags = self.net.batch_calls();
        self.job("batch", &arguments(&["batch"], &flags)).await
    }

    async fn job<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &str,
        args: &[String],
    ) -> anyhow::Result<T> {
        let shop = self.binaries.shop.clone();
        let (status, text) = self.children.run(name, &shop, args).await?;
        let read = serde_json::from_str(&text);
        if read.is_err() {
            self.children.blame(name);
        }
        read.with_context(|| format!("{name} ended with {status} and said nothing"))
    }

    /// Edits the split's file as an editor would, and waits until the storefront's sidecar goes by it.
    /// Returns how long that took.
    ///
    /// # Errors
    /// When it does not happen.
    pub(crate) async fn split(&mut self, v1: u32, v2: u32) -> anyhow::Result<Duration> {
        let before = self.view()?.status().await?.generation;
        let file = self.dir.source().join(layout::SPLIT_FILE);
        let new = file.with_extension("new");
        fs::write(&new, layout::split_yaml(self.broken, v1, v2))?;
        fs::rename(&new, &file)?;
        let edited = Instant::now();
        loop {
            self.children.all_run()?;
            if self.applied(before).await? {
                return Ok(edited.elapsed());
            }
            if edited.elapsed() > READY {
                bail!(
                    "the storefront's sidecar did not take the new split within {READY:?}; see {}",
                    file.display()
                );
            }
            sleep(LOOK).await;
        }
    }

    /// True when the storefront's sidecar has applied something newer than `generation`.
    async fn applied(&mut self, generation: u64) -> Result<bool, anyhow::Error> {
        let view = self.view()?;
        let now = view.status().await?.generation;
        if now <= generation {
            return Ok(self.broken == Some(Break::Split));
        }
        let workloads: Result<_, ViewError> = view.workloads(NAMESPACE).await;
        let storefront =
            workloads?.into_iter().find(|workload| &*workload.config.workload.name == STOREFRONT.name);
        Ok(storefront.and_then(|workload| workload.proxy).is_some_and(|proxy| proxy.generation >= now))
    }

    /// Reads everybody's counters once.
    async fn scrape(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts { proxies: BTreeMap::new(), apps: BTreeMap::new() };
        for member in MEMBERS {
            let (_, page) = http::get(self.net.at(member, ports::HEALTH), "/metrics").await?;
            let proxy = ProxyCounts::parse(&page).map_err(|line| {
                anyhow::anyhow!("{}'s metrics have a line that cannot be read: {line}", member.name)
            })?;
            counts.proxies.insert(member.name.to_owned(), proxy);
            if member.is_service() {
                let (_, page) = http::get(self.net.at(member, STATS), "/stats").await?;
                let app: App =
                    serde_json::from_str(&page).with_context(|| format!("{}'s /stats", member.name))?;
                counts.apps.insert(member.name.to_owned(), app);
            }
        }
        Ok(counts)
    }

    /// Reads everybody's counters when they have settled: twice the same.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn counts(&self) -> anyhow::Result<Counts> {
        let deadline = Instant::now() + SETTLE;
        let mut last = self.scrape().await?;
        loop {
            sleep(Duration::from_millis(150)).await;
            let now = self.scrape().await?;
            if now == last || Instant::now() > deadline {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Ends everything, callers first, and returns what is left or did not end well.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        drop(self.view.take());
        let mut left = self.children.stop(|name| matches!(name, "load" | "batch")).await;
        left.extend(self.children.stop(|name| name == STOREFRONT.name).await);
        left.extend(self.children.stop(|name| !name.starts_with(SIDECAR) && name != "controller").await);
        left.extend(self.children.stop(|name| name.starts_with(SIDECAR)).await);
        left.extend(self.children.stop(|_| true).await);
        let listening = still_listening(&self.net.listeners()).await;
        left.extend(listening.iter().map(|address| format!("something still listens on {address}")));
        let Self { children, dir, .. } = self;
        if dir.keep {
            children.end_watchdog().await;
            return left;
        }
        watchdog::remove(dir.path());
        children.end_watchdog().await;
        if dir.path().exists() {
            left.push(format!("{} could not be removed", dir.path().display()));
        }
        left
    }
}

/// Name of the process beside a workload.
fn sidecar(member: Member) -> String {
    format!("{SIDECAR}{}", member.name)
}

fn arguments(command: &[&str], flags: &[(&str, String)]) -> Vec<String> {
    let command = command.iter().map(|word| (*word).to_owned());
    command.chain(flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()])).collect()
}
