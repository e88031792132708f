//! Calls are read or refused as CNI says; what the agent says is read without trust.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    agent::{self, Answer},
    request::{Command, Request},
    *,
};

const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=u";

fn entry() -> Value {
    json!({ "cniVersion": "1.0.0", "name": "net", "type": "mesh-cni", "socket": "/run/a.sock",
        "exclude": ["kube-system"], "prevResult": { "ips": [{ "address": "10.0.0.2/24" }] }, "unknown": 1 })
}

fn read(command: &str, args: &str, entry: &Value) -> Result<Request, Failure> {
    let env = |name: &str| match name {
        "CNI_COMMAND" => Some(command.to_owned()),
        "CNI_NETNS" => Some("/var/run/netns/a".to_owned()),
        "CNI_ARGS" => Some(args.to_owned()),
        _ => None,
    };
    Request::read(env, entry.to_string().as_bytes())
}

#[test]
fn calls_are_read() {
    let request = read("ADD", ARGS, &entry()).unwrap();
    let Command::Add(attachment, passed) = request.command else { panic!("{request:?}") };
    assert_eq!(passed, entry()["prevResult"]);
    let pod = attachment.pod.as_ref().unwrap();
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("shop", "cart-0", "u"));
    assert_eq!(attachment.exclude, ["kube-system"]);
    let Command::Check(other) = read("CHECK", "", &entry()).unwrap().command else { panic!("not CHECK") };
    assert_eq!(other.pod, None, "not made by Kubernetes");
    for command in ["DEL", "GC", "STATUS"] {
        assert_eq!(read(command, "", &entry()).unwrap().command, Command::Nothing);
    }
    assert_eq!(read("VERSION", "", &json!({})).unwrap().command, Command::Version);
}

#[test]
fn what_is_wrong_has_its_code() {
    let without = |name: &str| {
        let mut entry = entry();
        entry.as_object_mut().unwrap().remove(name);
        entry
    };
    let with = |name: &str, value: Value| {
        let mut entry = entry();
        entry[name] = value;
        entry
    };
    let cases = [
        ("ADD", ARGS, without("prevResult"), Code::Config, "behind the plugin"),
        ("ADD", ARGS, without("socket"), Code::Config, "`socket`"),
        ("ADD", ARGS, with("socket", json!("a.sock")), Code::Config, "absolute"),
        ("ADD", ARGS, with("cniVersion", json!("0.2.0")), Code::Version, "one of 0.3.0"),
        ("ADD", ARGS, without("cniVersion"), Code::Undecodable, "cniVersion"),
        ("ADD", ARGS, with("exclude", json!(7)), Code::Undecodable, "expected a sequence"),
        ("ADD", ARGS, json!([]), Code::Undecodable, "standard input"),
        ("ADD", "K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=c", entry(), Code::Environment, "CNI_ARGS"),
        ("EAT", ARGS, entry(), Code::Environment, "\"EAT\""),
        ("", ARGS, entry(), Code::Environment, "CNI_COMMAND is not set"),
    ];
    for (command, args, entry, code, text) in cases {
        let failure = read(command, args, &entry).unwrap_err();
        assert_eq!(failure.code, code, "{failure:?}");
        let json: Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["code"], code as u32);
        assert!(format!("{}; {}", json["msg"], json["details"]).replace('\\', "").contains(text), "{json}");
    }
}

#[test]
fn answers_are_read() {
    let args = agent::read(b"{\"args\":[\"--proxy-uid\",\"7\"]}\n").unwrap();
    assert_eq!(args, Answer::Args(vec!["--proxy-uid".into(), "7".into()]));
    assert_eq!(agent::read(b"{\"skip\":\"no\"}\n").unwrap(), Answer::Skip("no".into()));
    for bad in ["", "{\"skip\":\"no\"}", "{}\n", "{\"yes\":1}\n", "null\n", "{\"args\":[7]}\n"] {
        assert!(agent::read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn flags_from_elsewhere_can_only_make_rules() {
    let parse = |text: &str| {
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        init::parse(&args).map(drop)
    };
    parse("--proxy-uid 1337 --skip-inbound-port 22,8000-8010 --skip-outbound-cidr 10.0.0.0/8").unwrap();
    assert!(parse("--proxy-uid 1337 --remove").unwrap_err().contains("--remove"));
    assert!(parse("--proxy-uid 1337 --print").unwrap_err().contains("--print"));
    assert!(parse("--proxy-uid 1337 --skip-inbound-port 0").unwrap_err().contains("expected a port"));
    assert!(parse("--help").is_err());
    assert!(parse("run").is_err());
}

proptest! {
    #[test]
    fn errors_are_json_of_bounded_size(message in ".{0,3000}", details in ".{0,3000}") {
        let text = Failure::new(Code::Io, message, &details).in_version("1.1.0").to_json();
        let json: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&json["cniVersion"], "1.1.0");
        for field in ["msg", "details"] {
            prop_assert!(json[field].as_str().unwrap().len() <= 800);
        }
    }
}
