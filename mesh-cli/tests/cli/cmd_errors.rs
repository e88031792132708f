//! What can go wrong between meshctl and a controller: each is told with what to do, and exit code 2.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    thread,
};

use crate::{
    shop::Shop,
    support::{Controller, command, compare, data_dir, run},
};

#[test]
fn no_controller_was_ever_there() {
    let dir = tempfile::tempdir().unwrap();
    compare(
        &run(dir.path(), &["status"]),
        dir.path(),
        "",
        2,
        "",
        r#"
error: no controller is running with the data directory DIR; start one with `mesh-controller run --source DIR --data-dir DIR`, try `meshctl demo`, or name another with --data-dir
"#,
    );
    compare(
        &run(dir.path(), &["check"]),
        dir.path(),
        "",
        1,
        r#"
Controller
  FAIL  the view API answers
        no controller is running with the data directory DIR
        start one with `mesh-controller run --source DIR --data-dir DIR`, try `meshctl demo`, or name another with --data-dir

1 check, 1 failed
"#,
        "",
    );
}

#[test]
fn the_controller_was_killed() {
    let (address, dir) = Controller::start(Shop::healthy()).kill();
    compare(
        &run(dir.path(), &["edges"]),
        dir.path(),
        &address.to_string(),
        2,
        "",
        r#"
error: no controller answers at ADDR (Connection refused (os error 111)); is it running? See its log, or start it with `mesh-controller run`
"#,
    );
    compare(
        &run(dir.path(), &["check"]),
        dir.path(),
        &address.to_string(),
        1,
        r#"
Controller
  FAIL  the view API answers
        no controller answers at ADDR (Connection refused (os error 111))
        is it running? See its log, or start it with `mesh-controller run`

1 check, 1 failed
"#,
        "",
    );
}

#[test]
fn wrong_token() {
    let controller = Controller::start(Shop::healthy());
    fs::write(controller.dir.path().join("view-token"), "wrong").unwrap();
    controller.check(
        &["stat"],
        2,
        "",
        r#"
error: the controller at ADDR refuses the token in DIR/view-token; use the view-token file of that controller's data directory
"#,
    );
    controller.check(
        &["check"],
        1,
        r#"
Controller
  ok    the view API answers (ADDR)
  FAIL  the view token is accepted
        the controller at ADDR refuses the token in DIR/view-token
        use the view-token file of that controller's data directory

2 checks, 1 failed
"#,
        "",
    );
}

#[test]
fn token_files_that_hold_none() {
    let controller = Controller::start(Shop::healthy());
    let token = controller.dir.path().join("view-token");
    for text in ["", " \n", "two words", "\u{1b}[2J"] {
        fs::write(&token, text).unwrap();
        controller.check(
            &["status"],
            2,
            "",
            "error: DIR/view-token holds no token; copy the controller's view-token file\n",
        );
    }
    fs::remove_file(&token).unwrap();
    controller.check(
        &["status"],
        2,
        "",
        r#"
error: there is no view token at DIR/view-token; name the controller's view-token file with --view-token-file
"#,
    );
}

#[test]
fn unreadable_token() {
    let controller = Controller::start(Shop::healthy());
    let token = controller.dir.path().join("view-token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&token).is_ok() {
        // Root reads everything; a directory in the place of the file cannot be read by anybody.
        fs::remove_file(&token).unwrap();
        fs::create_dir(&token).unwrap();
    }
    let output = run(controller.dir.path(), &["status"]);
    let text =
        String::from_utf8_lossy(&output.stderr).replace(&controller.dir.path().display().to_string(), "DIR");
    assert_eq!(output.status.code(), Some(2));
    assert!(text.starts_with("error: cannot read DIR/view-token: "), "{text}");
    assert!(text.contains("run meshctl as that user, or name another with --view-token-file"), "{text}");
}

#[test]
fn state_that_no_controller_wrote() {
    let dir = data_dir("127.0.0.1:1", "token");
    fs::write(dir.path().join("controller.json"), "{\"view\": 5}").unwrap();
    compare(
        &run(dir.path(), &["status"]),
        dir.path(),
        "",
        2,
        "",
        r#"
error: DIR/controller.json is not what a controller writes (invalid type: integer `5`, expected a string at line 1 column 10); remove it and restart the controller
"#,
    );
}

#[test]
fn flags_beat_the_data_directory() {
    let controller = Controller::start(Shop::healthy());
    let nowhere = tempfile::tempdir().unwrap();
    let address = format!("http://{}/", controller.address);
    let token = controller.dir.path().join("view-token");
    let args = ["version", "--view", &address, "--view-token-file", token.to_str().unwrap()];
    let output = run(nowhere.path(), &args);
    assert!(String::from_utf8_lossy(&output.stdout).contains("controller:"), "{output:?}");
    compare(
        &run(controller.dir.path(), &["status", "--view", "nonsense"]),
        nowhere.path(),
        "",
        2,
        "",
        r#"
error: "nonsense" is not an address of the form IP:PORT, as in 127.0.0.1:15080
"#,
    );
}

/// A server that answers every connection with `answer`, whatever was asked, or
/// closes it when that is empty; it ends with the test process.
fn garbage(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(answer);
            if !answer.is_empty() {
                thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            }
        }
    });
    address
}

#[test]
fn something_else_answers() {
    let http1: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let huge_frame: &[u8] = &[0xff; 64];
    // An empty SETTINGS frame, then frames that are too short for their type (RFC 9113, sections 6.6 and 6.7).
    let short_ping: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x06\0\0\0\0\0x";
    let short_push: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x05\0\0\0\0\0";
    for answer in [http1, huge_frame, short_ping, short_push] {
        let address = garbage(answer);
        let dir = data_dir(&address, "token");
        let output = run(dir.path(), &["status", "--timeout", "2s"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{answer:?}: {text}");
        assert!(
            text.starts_with(&format!(
                "error: what answers at {address} is not the view API of a controller ("
            )),
            "{answer:?}: {text}"
        );
        assert!(text.ends_with("; check --view and MESH_VIEW\n"), "{text}");
    }
}

#[test]
fn the_connection_is_closed() {
    let address = garbage(b"");
    let dir = data_dir(&address, "token");
    let output = run(dir.path(), &["status"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.starts_with(&format!("error: no controller answers at {address} (")), "{text}");
}

#[test]
fn nothing_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let dir = data_dir(&address, "token");
    compare(
        &run(dir.path(), &["status", "--timeout", "300ms"]),
        dir.path(),
        &address,
        2,
        "",
        r#"
error: the controller at ADDR did not answer within 300ms; see its log, or wait longer with --timeout
"#,
    );
}

#[test]
fn entries_that_cannot_be_understood_are_left_out_and_told() {
    let controller = Controller::start(Shop::garbled());
    let check = |args: &[&str], code, has: &[&str], warned: &[&str]| {
        let output = run(controller.dir.path(), args);
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        has.iter().for_each(|text| assert!(out.contains(text), "{args:?}: {text}: {out}"));
        let lines: Vec<&str> = err.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(lines.len(), warned.len(), "{args:?}: {err}");
        for (line, kind) in lines.iter().zip(warned) {
            assert!(line.starts_with(&format!("warning: 1 {kind} of ")), "{line}");
            assert!(
                line.contains("in the controller's answer cannot be understood and is left out (number ")
            );
            assert!(line.ends_with("; use a meshctl of the controller's version"), "{line}");
            assert!(!line.contains('\u{1b}'), "{line}");
        }
    };
    check(&["status"], 0, &["Workloads:      3", "Services:       4"], &["workload", "Service port"]);
    check(&["stat", "-q"], 0, &["shop/cart:8080"], &["Service port", "edge"]);
    check(&["stat", "workload"], 0, &["shop/catalog-v2"], &["workload", "edge"]);
    check(&["edges"], 0, &["shop/batch"], &["edge"]);
    let all = ["workload", "Service port", "edge"];
    check(&["inspect", "wl", "catalog-v1"], 0, &["Workload shop/catalog-v1"], &all);
    check(&["inspect", "wl", "cart"], 2, &[], &all);
    let failed =
        "FAIL  the controller's answers are understood\n        1 workload of 4 in the controller's answer";
    check(&["check"], 1, &[failed, "every workload: its proxy is connected (3 of 3)"], &[]);
}

#[test]
fn a_broken_pipe_is_success() {
    let controller = Controller::start(Shop::healthy());
    for args in [["stat", "-q"], ["completion", "bash"]] {
        let mut child = command(controller.dir.path(), &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let check = |args: &[&str], expected: &str| {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(expected), "{args:?}: {text}");
        assert_eq!(output.stdout, b"");
    };
    check(&[], "Usage: meshctl");
    check(&["edgse"], "a similar subcommand exists: 'edges'");
    check(&["edges", "--windwo", "5s"], "a similar argument exists: '--window'");
    check(&["edges", "--window", "11m"], "at most 10m is kept");
    check(&["stat", "pod"], "possible values: workload, service, serviceaccount");
    check(&["stat", "-A", "-n", "shop"], "cannot be used with");
    check(&["status", "-o", "xml"], "possible values: table, json, yaml");
    check(&["inspect", "svc"], "<NAME>");
    check(&["completion", "tcsh"], "possible values: bash, elvish, fish, powershell, zsh");
}
