//! Names of images, checked where they are given: whatever reads the images later says less about what is wrong.

/// A tag as the OCI distribution specification has it.
pub(super) fn tag(text: &str) -> Result<String, String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-') {
        return Ok(text.to_owned());
    }
    Err("a tag has up to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two"
        .to_owned())
}

/// `HOST/PATH`, or a host alone. The host must look like one: otherwise it would be taken for a folder of docker.io.
pub(super) fn repository(text: &str) -> Result<String, String> {
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let is_host =
        name.split('.').all(is_part) && (name.contains('.') || port.is_some() || name == "localhost");
    if !(is_host && is_port) {
        return Err("it begins with a host, as in ghcr.io/somebody or localhost:5000".to_owned());
    }
    if path.is_some_and(|path| !path.split('/').all(is_part)) {
        return Err(
            "parts of its path are of small letters and digits, with `.`, `_` or `-` between them".to_owned()
        );
    }
    Ok(text.to_owned())
}

fn is_part(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(word) && text.ends_with(word) && text.chars().all(|c| word(c) || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked() {
        for good in ["0.1.0", "latest", "_a", "v1-rc.2"] {
            assert_eq!(tag(good).as_deref(), Ok(good));
        }
        for bad in ["", "-a", ".a", "a b", "a:b", "a/b", "ä", &"a".repeat(129)] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn repositories_begin_with_a_host() {
        for good in
            ["meshctl.dev", "ghcr.io/some-body/mesh", "localhost", "localhost:5000/a", "10.0.0.1:5000"]
        {
            assert_eq!(repository(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "mesh",
            "mesh/a",
            "ghcr.io/",
            "ghcr.io/A",
            "ghcr.io//a",
            "ghcr.io:x/a",
            "https://ghcr.io",
            "a..b",
        ] {
            assert!(repository(bad).is_err(), "{bad}");
        }
    }
}
