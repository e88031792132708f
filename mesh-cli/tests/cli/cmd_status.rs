//! `meshctl status`, `version` and `completion`.

use clap::ValueEnum as _;
use clap_complete::Shell;

use crate::{shop::Shop, support::Controller, support::run};

#[test]
fn status() {
    let controller = Controller::start(Shop::troubled());
    controller.check(
        &["status"],
        0,
        r#"
Controller:     0.1.0, up 1h2m, view API at ADDR
Trust domain:   cluster.local
Source:         /etc/mesh
Configuration:  generation 7, 12 objects
Problems:       2; 1 object not applied
Services:       5
Workloads:      4
Proxies:        2 of 4 connected
Trust anchors:  sha256:ab12ab12ab12ab12…, expires in 3650d
Issuer:         expires in 12d
"#,
        "",
    );
    controller.check(
        &["status", "-o", "yaml"],
        0,
        r#"
address: ADDR
version: "0.1.0"
uptimeSeconds: 3725.5
trustDomain: cluster.local
source: /etc/mesh
generation: 7
objects: 12
workloads: 4
proxiesConnected: 2
services: 5
problems: 2
objectsRefused: 1
trustAnchors:
- sha256: ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12
  notAfter: "TIME"
issuerNotAfter: "TIME"
"#,
        "",
    );
}

#[test]
fn verbose_says_what_is_asked() {
    let controller = Controller::start(Shop::healthy());
    let output = run(controller.dir.path(), &["status", "-v"]);
    let expected = format!(
        "asking {} with the token in {}/view-token\n",
        controller.address,
        controller.dir.path().display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

#[test]
fn versions() {
    let controller = Controller::start(Shop::healthy());
    let version = env!("CARGO_PKG_VERSION");
    controller.check(
        &["version"],
        0,
        &format!("meshctl:     {version}\ncontroller:  {version}\nproxies:     {version} (4)\n"),
        "",
    );
    let json = format!(
        "{{\n  \"client\": \"{version}\",\n  \"controller\": null,\n  \"proxies\": {{}},\n  \"error\": null\n}}\n"
    );
    controller.check(&["version", "--client", "-o", "json"], 0, &json, "");
    let (address, dir) = controller.kill();
    let output = run(dir.path(), &["version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("meshctl:  {version}\n"));
    let remark = format!("controller not asked: no controller answers at {address}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(&remark), "{output:?}");
}

#[test]
fn completion_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let signs = [
        ("bash", "complete -F _meshctl"),
        ("elvish", "set edit:completion:arg-completer[meshctl]"),
        ("fish", "complete -c meshctl"),
        ("powershell", "Register-ArgumentCompleter"),
        ("zsh", "#compdef meshctl"),
    ];
    let all: Vec<String> = Shell::value_variants().iter().map(ToString::to_string).collect();
    assert_eq!(signs.map(|(shell, _)| shell.to_owned()).as_slice(), all);
    for (shell, sign) in signs {
        let output = run(dir.path(), &["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(sign) && script.contains("inspect"), "{shell}");
    }
}

#[test]
fn bash_reads_the_completion_script() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("meshctl.bash");
    std::fs::write(&script, run(dir.path(), &["completion", "bash"]).stdout).unwrap();
    let ask = "source \"$1\"; COMP_WORDS=(meshctl insp); COMP_CWORD=1; _meshctl meshctl insp meshctl; echo \"${COMPREPLY[*]}\"";
    let output = std::process::Command::new("bash").args(["-c", ask, "bash"]).arg(&script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "inspect", "{output:?}");
}
