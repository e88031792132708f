//! The proxy's parsers, for the fuzzer: the one door to them, which is not there in a normal build. Each target holds
//! bytes against a property, not only against a panic. The tests below run the same properties over the seeds.

/// Name, property, and inputs to begin with. The property panics where it does not hold.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All parsers of the proxy.
pub const TARGETS: &[Target] = &[
    ("client-hello", crate::detect::fuzz::client_hello, crate::detect::fuzz::hellos),
    ("first-bytes", crate::detect::fuzz::first_bytes, crate::detect::fuzz::openings),
    ("h1-request", crate::http::h1::fuzz::request, crate::http::h1::fuzz::requests),
    ("h1-response", crate::http::h1::fuzz::response, crate::http::h1::fuzz::responses),
    ("h1-body", crate::http::h1::fuzz::body, crate::http::h1::fuzz::bodies),
    ("h2-frames", crate::http::fuzz::frames, crate::http::fuzz::frame_seeds),
    ("request-head", crate::http::fuzz::request, crate::http::fuzz::requests),
    ("fields", crate::http::fuzz::fields, crate::http::fuzz::field_seeds),
    ("tls-records", crate::tls::session::fuzz::records, crate::tls::session::fuzz::record_seeds),
    ("proxy-header", crate::inbound::fuzz::proxy_header, crate::inbound::fuzz::proxy_headers),
    ("handover", crate::upgrade::fuzz::handover, crate::upgrade::fuzz::handovers),
    ("cni-call", crate::cni::fuzz::call, crate::cni::fuzz::calls),
    ("netlink", crate::init::fuzz::netlink, crate::init::fuzz::answers),
    ("init-values", crate::init::fuzz::values, crate::init::fuzz::value_seeds),
    ("options", crate::config::fuzz::options, crate::config::fuzz::option_seeds),
];

/// Cuts numbers off the front of an input: how the rest is to be treated.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    /// The next number below `end`; 0 when there is nothing left.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds, and what is near them: cut short, one byte changed.
    #[test]
    fn properties_hold_near_the_seeds() {
        for (name, check, seeds) in TARGETS {
            let seeds = seeds();
            assert!(!seeds.is_empty(), "{name} has no seeds");
            check(&[]);
            for seed in seeds {
                check(&seed);
                let step = (seed.len() / 150).max(1);
                for at in (0..seed.len()).step_by(step) {
                    check(&seed[..at]);
                    let mut changed = seed.clone();
                    for byte in [b'\r', b'\n', b' ', b':', 0, 0xff, changed[at] ^ 1] {
                        changed[at] = byte;
                        check(&changed);
                    }
                }
            }
        }
    }
}
