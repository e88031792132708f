//! The network's configuration as other programs write it, and what follows from pods.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    conflist::{self, chained, unchained},
    keep::{KeepError, Keeper},
    pods::Known,
    raced::Remedy,
    serve::{Question, Server},
    verdict::{self, Verdict},
    *,
};

fn ours() -> Value {
    conflist::entry(Path::new("/run/mesh-cni/agent.sock"), &["kube-system".to_owned()])
}

/// As flannel writes it.
const LIST: &str = r#"{
  "name": "cbr0", "cniVersion": "0.3.1", "disableCheck": true,
  "plugins": [
    { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}"#;
/// As cilium writes it.
const SINGLE: &str =
    r#"{ "cniVersion": "0.3.1", "name": "cilium", "type": "cilium-cni", "enable-debug": false }"#;

#[test]
fn the_plugin_is_chained_once_and_nothing_else_changes() {
    let edited = chained("10-flannel.conflist", LIST, &ours()).unwrap().unwrap();
    assert_eq!(edited.name, "10-flannel.conflist");
    let mut expected: Value = serde_json::from_str(LIST).unwrap();
    expected["plugins"].as_array_mut().unwrap().push(ours());
    assert_eq!(serde_json::from_str::<Value>(&edited.text).unwrap(), expected);
    assert_eq!(chained(&edited.name, &edited.text, &ours()).unwrap(), None, "again is no change");

    // Others may stand behind it, and need not be fought with.
    expected["plugins"].as_array_mut().unwrap().push(json!({ "type": "istio-cni" }));
    assert_eq!(chained("a.conflist", &expected.to_string(), &ours()).unwrap(), None);
    // What is old, twice or first is put right.
    let old = conflist::entry(Path::new("/old.sock"), &[]);
    for plugins in [
        json!([{ "type": "flannel" }, old]),
        json!([{ "type": "flannel" }, ours(), ours()]),
        json!([ours(), { "type": "flannel" }]),
    ] {
        let text = json!({ "cniVersion": "1.0.0", "name": "n", "plugins": plugins }).to_string();
        let edited = chained("a.conflist", &text, &ours()).unwrap().unwrap();
        let now: Value = serde_json::from_str(&edited.text).unwrap();
        assert_eq!(now["plugins"], json!([{ "type": "flannel" }, ours()]));
    }
    let gone = unchained(&edited.name, &edited.text).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&gone.text).unwrap(),
        serde_json::from_str::<Value>(LIST).unwrap()
    );
    assert_eq!(unchained("10-flannel.conflist", LIST), None);
}

#[test]
fn a_single_plugin_becomes_a_list() {
    let edited = chained("05-cilium.conf", SINGLE, &ours()).unwrap().unwrap();
    assert_eq!(edited.name, "05-cilium.conflist");
    let expected = json!({ "cniVersion": "0.3.1", "name": "cilium",
        "plugins": [{ "type": "cilium-cni", "enable-debug": false }, ours()] });
    assert_eq!(serde_json::from_str::<Value>(&edited.text).unwrap(), expected);
}

#[test]
fn what_is_no_network_is_left_alone_and_told() {
    let cases = [
        ("a.conflist", "", "no JSON"),
        ("a.conflist", "[]", "no JSON object"),
        ("a.conflist", r#"{"cniVersion":"1.0.0"}"#, "no list `plugins`"),
        ("a.conflist", r#"{"cniVersion":"1.0.0","plugins":[]}"#, "makes a network"),
        ("a.conflist", r#"{"cniVersion":"1.0.0","plugins":[{"type":"mesh-cni"}]}"#, "makes a network"),
        ("a.conflist", r#"{"cniVersion":"1.0.0","plugins":[{"name":"x"}]}"#, "no `type`"),
        ("a.conflist", r#"{"plugins":[{"type":"x"}]}"#, "has no chains"),
        ("a.conf", r#"{"cniVersion":"0.2.0","type":"x"}"#, "cniVersion 0.2.0"),
        ("a.json", r#"{"cniVersion":"1.0.0","plugins":[]}"#, "no `type`"),
    ];
    for (name, text, expected) in cases {
        let error = chained(name, text, &ours()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_are_kept_as_they_must_be_whoever_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    let keeper = Keeper::new(directory, ours());
    let hold = || keeper.hold(&mut Writes::default(), Instant::now());
    assert!(matches!(hold(), Err(KeepError::NoNetwork(_))));
    // What no runtime reads is nobody's network.
    fs::write(directory.join("00-notes.txt"), "x").unwrap();
    fs::write(directory.join("99-bridge.conflist"), LIST).unwrap();
    let list = directory.join("10-flannel.conflist");
    fs::write(&list, LIST).unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    hold().unwrap();
    assert_eq!(read(&list)["plugins"][2], ours());
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(directory.join("99-bridge.conflist")).unwrap(), LIST, "not the first");
    let before = fs::metadata(&list).unwrap().modified().unwrap();
    hold().unwrap();
    assert_eq!(fs::metadata(&list).unwrap().modified().unwrap(), before, "what is right is not written");

    fs::write(&list, LIST).unwrap();
    hold().unwrap();
    assert_eq!(read(&list)["plugins"][2], ours(), "another program wrote it anew");

    // Another network comes before it, as a file of one plugin.
    fs::write(directory.join("05-cilium.conf"), SINGLE).unwrap();
    hold().unwrap();
    let all = ["00-notes.txt", "05-cilium.conflist", "10-flannel.conflist", "99-bridge.conflist"];
    assert_eq!(names(directory), all);
    assert_eq!(read(&directory.join("05-cilium.conflist"))["plugins"][1], ours());

    keeper.leave();
    assert_eq!(names(directory), all, "nothing is left over");
    for name in &all[1..] {
        assert!(!fs::read_to_string(directory.join(name)).unwrap().contains("mesh-cni"), "{name}");
    }
    fs::write(directory.join("01-half.conflist"), "{ \"cniVers").unwrap();
    assert!(matches!(hold(), Err(KeepError::Foreign { .. })), "runtimes take the first");
}

/// As Cilium does that shares the directory with nobody.
#[test]
fn a_program_that_writes_the_file_anew_for_ever_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(folder.path(), ours());
    let list = folder.path().join("05-cilium.conflist");
    let (start, mut writes) = (Instant::now(), Writes::default());
    let mut told = Vec::new();
    for second in 0..60 {
        fs::write(&list, LIST).unwrap();
        let held = keeper.hold(&mut writes, start + Duration::from_secs(second));
        let text = fs::read_to_string(&list).unwrap();
        let is_in = text.contains("mesh-cni");
        told.push((is_in, held));
    }
    assert_eq!(told.iter().filter(|(is_in, _)| *is_in).count(), 6);
    assert!(matches!(told[..3], [(true, Ok(())), (true, Ok(())), (false, Err(KeepError::TakenOut(_)))]));
    assert!(told[31..].iter().all(|(_, held)| matches!(held, Err(KeepError::Fought(_)))));
    let last = told.pop().unwrap().1.unwrap_err().to_string();
    assert!(last.contains("05-cilium.conflist") && last.contains("cni.exclusive=false"), "{last}");
}

/// A pod with this, and what every pod of the mesh has.
fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "cart-1", "namespace": "shop", "uid": "u",
            "annotations": { "meshctl.dev/interception": "[\"--proxy-uid\",\"1337\"]" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "r",
                "controller": true }] },
        "spec": { "initContainers": [{ "name": "mesh-proxy" }], "containers": [{ "name": "app" }] },
        "status": {},
    });
    change(&mut pod);
    serde_json::from_value(pod).unwrap()
}

#[test]
fn a_pod_is_of_the_mesh_if_it_asks_for_rules_and_nobody_else_writes_them() {
    let args = Verdict::Args(vec!["--proxy-uid".into(), "1337".into()]);
    assert_eq!(Verdict::of(&pod(|_| {})), args);
    assert_eq!(serde_json::to_value(&args).unwrap(), json!({ "args": ["--proxy-uid", "1337"] }));
    let classic = |pod: &mut Value| {
        pod["spec"]["initContainers"][0]["name"] = "mesh-check".into();
        pod["spec"]["containers"][0]["name"] = "mesh-proxy".into();
    };
    assert_eq!(Verdict::of(&pod(classic)), args);
    let skipped: [fn(&mut Value); 4] = [
        |pod| pod["metadata"]["annotations"] = json!({}),
        |pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into(),
        |pod| pod["spec"]["initContainers"][0]["name"] = "mesh-init".into(),
        |pod| pod["spec"]["initContainers"] = json!([]),
    ];
    for change in skipped {
        let verdict = Verdict::of(&pod(change));
        assert!(matches!(verdict, Verdict::Skip(_)), "{verdict:?}");
    }
    let garbage =
        pod(|pod| pod["metadata"]["annotations"]["meshctl.dev/interception"] = "--proxy-uid".into());
    assert!(matches!(Verdict::of(&garbage), Verdict::Error(error) if error.contains("no JSON list")));
}

#[test]
fn only_a_proxy_that_found_no_rules_makes_a_pod_raced() {
    let status = |list: &'static str, name: &'static str, state: Value, last: Value| {
        move |pod: &mut Value| {
            pod["status"][list] = json!([{ "name": name, "image": "", "imageID": "", "ready": false,
                "restartCount": 1, "state": state, "lastState": last }]);
        }
    };
    let ended = |code: i32| json!({ "terminated": { "exitCode": code } });
    let waits = || json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    let (init, main) = ("initContainerStatuses", "containerStatuses");
    let is_raced = |change: &dyn Fn(&mut Value)| verdict::is_raced(&pod(|pod| change(pod)));
    assert!(is_raced(&status(init, "mesh-proxy", ended(76), json!({}))));
    assert!(is_raced(&status(init, "mesh-check", waits(), ended(76))));
    assert!(is_raced(&status(main, "mesh-proxy", waits(), ended(76))));
    assert!(!is_raced(&status(main, "mesh-proxy", json!({ "running": {} }), ended(76))), "it runs by now");
    assert!(!is_raced(&status(main, "mesh-proxy", waits(), ended(2))));
    assert!(!is_raced(&status(main, "app", waits(), ended(76))), "an application's own code");
    let going = |pod: &mut Value| {
        status(init, "mesh-proxy", ended(76), json!({}))(pod);
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    };
    assert!(!is_raced(&going));
}

#[test]
fn only_what_is_made_again_is_deleted() {
    let owned = Known::of(&pod(|_| {}));
    assert_eq!(owned.owner.as_deref(), Some("ReplicaSet cart"));
    assert_eq!(Remedy::of(&owned, false), Remedy::Delete);
    assert_eq!(Remedy::of(&owned, true), Remedy::Broken, "it had its rules: a new one would fare no better");
    let bare = Known::of(&pod(|pod| pod["metadata"]["ownerReferences"] = json!([])));
    assert_eq!(Remedy::of(&bare, false), Remedy::Tell);
    let of_node = |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["kind"] = "Node".into();
    assert_eq!(Remedy::of(&Known::of(&pod(of_node)), false), Remedy::Tell);
}

#[test]
fn questions_are_told_apart() {
    let read = |text: &str| serde_json::from_str::<Question>(text).ok();
    let pod = Question::Pod { namespace: "a".into(), name: "b".into(), uid: String::new() };
    assert_eq!(read(r#"{"namespace":"a","name":"b","uid":""}"#), Some(pod));
    assert_eq!(read(r#"{"ready":true}"#), Some(Question::Ready { ready: true }));
    for bad in ["", "{}", "7", r#"{"namespace":"a"}"#] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn a_socket_is_for_root_alone_and_takes_its_predecessors_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run").join("agent.sock");
    let first = Server::bind(&path).unwrap();
    let second = Server::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(first);
    let accepted = tokio::net::UnixStream::connect(&path).await;
    assert!(accepted.is_ok(), "the one that has ended took nothing with it");
    drop(second);
    assert!(serve::probe(&path).await.unwrap_err().to_string().contains("no agent answers"));
}

proptest! {
    #[test]
    fn whatever_stands_there_is_edited_whole_or_not_at_all(text in r#"[\{\}\[\]":,a-z0-9. ]{0,60}"#) {
        for name in ["a.conflist", "a.conf"] {
            if let Ok(Some(edited)) = chained(name, &text, &ours()) {
                prop_assert_eq!(chained(&edited.name, &edited.text, &ours()), Ok(None));
            }
            let _ = unchained(name, &text);
        }
    }
}
