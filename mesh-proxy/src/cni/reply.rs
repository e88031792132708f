//! What the plugin says: errors and versions, as CNI has them.

use std::fmt::Display;

use serde_json::json;

use super::request::Request;

/// Versions of CNI that the plugin speaks. In those before 0.3 there are no chains.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Longest text of an error, in bytes: it becomes an Event.
const MAX_TEXT: usize = 800;

/// What kind of failure it is: numbers of CNI up to 99, our own above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The version of CNI is not ours.
    Version = 1,
    /// The environment is wrong.
    Environment = 4,
    /// Something cannot be read.
    Io = 5,
    /// Standard input is not what it must be.
    Undecodable = 6,
    /// The network's configuration is wrong.
    Config = 7,
    /// It will be well later.
    TryAgain = 11,
    /// The rules cannot be made, or are not there.
    Rules = 100,
}

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    version: String,
    message: String,
    details: String,
}

impl Failure {
    /// A failure with its reason, or what to do about it.
    pub(super) fn new(code: Code, message: impl Into<String>, details: &dyn Display) -> Self {
        // Until it is known which version is spoken, any will do.
        Self { code, version: "1.0.0".to_owned(), message: message.into(), details: details.to_string() }
    }

    /// The same, told in the version of the request.
    pub(super) fn of(self, request: &Request) -> Self {
        self.in_version(&request.version)
    }

    /// The same, told in a version.
    pub(super) fn in_version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    /// As CNI wants it. Runtimes show the message, a semicolon, and the details.
    pub(super) fn to_json(&self) -> String {
        let json = json!({
            "cniVersion": self.version,
            "code": self.code as u32,
            "msg": cut(&self.message),
            "details": cut(&self.details),
        });
        json.to_string()
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default()
}

/// The answer to VERSION.
pub(super) fn versions(version: &str) -> String {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string()
}
