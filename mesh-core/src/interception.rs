//! What those agree on who write firewall rules for others: the CNI plugin, its agent, and the proxy.

/// Exit code of a proxy that was told to expect rules, and found none: its pod has to be made anew.
pub const UNCAPTURED: u8 = 76;
