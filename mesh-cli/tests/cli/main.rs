//! Runs the real `meshctl` against a real, small view API with canned answers, and compares all that it writes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod cmd_check;
mod cmd_check_cluster;
mod cmd_edges;
mod cmd_errors;
mod cmd_help;
mod cmd_inject;
mod cmd_inspect;
mod cmd_install;
mod cmd_install_cluster;
mod cmd_logs;
mod cmd_look;
mod cmd_stat;
mod cmd_status;
mod cmd_support;
mod cmd_wait;
mod forward;
mod living;
mod shop;
mod support;
