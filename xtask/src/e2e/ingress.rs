//! An ingress controller in front of the mesh: nginx as a plain reverse proxy, in a pod that has a sidecar.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cluster::Cluster;
use super::pods;
use crate::bench::peers;
use crate::lab;
use crate::workspace;

/// The image that is made of this machine's nginx.
const IMAGE: &str = "lab.local/nginx:1";

/// Callers outside of the mesh come in through nginx; from there on, all is as between any two pods.
pub(super) fn check(cluster: &Cluster<'_>) -> Result<()> {
    let Some(own) = cluster.lab else {
        println!("the image of nginx is only made for a lab");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("nginx.tar");
    let (nginx, version) = peers::packaged("nginx", "-v")?;
    lay_out(&nginx, &folder.path().join("root"))?;
    lab::pack(folder.path(), &[IMAGE], &archive)?;
    lab::load(own, &[archive])?;
    cluster.apply(include_str!("files/ingress.yaml"))?;
    cluster.rolled_out("ingress", &["deployment/nginx"])?;
    let args = ["load", "--target=nginx.ingress:80", "--host=shop.example", "--rate=200", "--count=400"];
    let outside = cluster.start_labelled("from-outside", "default", pods::OUTSIDE, &args)?;
    let (code, summary) = outside.finish()?;
    ensure!(code == 0, "requests through the ingress failed: {summary}");
    let wanted = "spiffe://cluster.local/ns/ingress/sa/nginx > spiffe://cluster.local/ns/shop/sa/storefront";
    let mut edges = BTreeSet::new();
    cluster.wait_for("edge from the ingress to the storefront", || {
        let document = cluster.ask(&["edges", "-A", "--window", "5m"])?;
        for edge in document["edges"].as_array().into_iter().flatten() {
            let text = |end: &str| edge[end].as_str().unwrap_or("outside").to_owned();
            if edge["secured"] == true {
                edges.insert(format!("{} > {}", text("source"), text("destination")));
            }
        }
        Ok(edges.contains(wanted))
    })?;
    println!("{version}, in a pod of the mesh, serves callers outside of it; behind it all is encrypted");
    cluster.run(&["delete", "namespace", "ingress"]).map(drop)
}

/// Lays a program out with the libraries that it is linked with, as a root that has nothing else.
fn lay_out(program: &Path, root: &Path) -> Result<()> {
    let linked = workspace::output(Command::new("ldd").arg(program))?;
    let libraries = linked.lines().filter_map(|line| line.split_whitespace().find(|w| w.starts_with('/')));
    let files = libraries.map(PathBuf::from).chain([program.to_path_buf()]);
    for file in files {
        let place = root.join(file.strip_prefix("/").unwrap_or(&file));
        let folder = place.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::copy(&file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    for folder in ["tmp", "etc/nginx", "var/lib/nginx", "var/log/nginx"] {
        fs::create_dir_all(root.join(folder))?;
    }
    // nginx looks its users up there.
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/\nnginx:x:101:101::/:/\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nnginx:x:101:\n")?;
    Ok(())
}
