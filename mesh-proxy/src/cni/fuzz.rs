//! Properties of what container runtimes and the agent send.

use super::{
    agent,
    reply::VERSIONS,
    request::{Command, Request},
};

/// Commands of CNI, and one that is none.
const COMMANDS: [&str; 7] = ["ADD", "CHECK", "DEL", "VERSION", "GC", "STATUS", "EAT"];

/// A call is read, or refused with JSON of the protocol; what is read is of a version that is spoken.
pub(crate) fn call(data: &[u8]) {
    for name in COMMANDS {
        let env = |variable: &str| match variable {
            "CNI_COMMAND" => Some(name.to_owned()),
            "CNI_NETNS" => Some("/var/run/netns/a".to_owned()),
            "CNI_ARGS" => Some(String::from_utf8_lossy(data).into_owned()),
            _ => None,
        };
        match Request::read(env, data) {
            Ok(Request { command: Command::Version, .. }) => {}
            Ok(request) => assert!(VERSIONS.contains(&&*request.version), "{request:?}"),
            Err(failure) => {
                let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap_or_default();
                assert!(json["code"].is_u64() && json["msg"].is_string(), "{json}");
            }
        }
    }
    let _ = agent::read(data);
}

/// What is sent to the plugin.
pub(crate) fn calls() -> Vec<Vec<u8>> {
    [
        r#"{"cniVersion":"1.0.0","name":"n","type":"mesh-cni","socket":"/s","prevResult":{"ips":[]}}"#,
        r#"{"cniVersion":"0.4.0","socket":"/s","exclude":["kube-system"]}"#,
        "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=1",
        "{\"args\":[\"--proxy-uid\",\"1337\"]}\n",
        "{\"skip\":\"no\"}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
