//! `odyssey` as a client: what newcomers, baristas and operators do by hand.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::found;

use crate::client::{get, order};
use crate::shop::{Shop, odyssey, odyssey_by, text, variable};

/// A command that talks to this shop, which it knows from its configuration.
fn at(shop: &Shop, arguments: &[&str]) -> Command {
    started(odyssey(), shop, arguments)
}

fn started(mut command: Command, shop: &Shop, arguments: &[&str]) -> Command {
    for (key, door) in [
        ("customers.listen", shop.customers),
        ("staff.listen", shop.staff),
    ] {
        command.env(variable(key), door.address.to_string());
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn spawned(mut command: Command) -> Child {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

async fn ended(mut child: Child) -> Output {
    found("the command ends", async || child.try_wait().unwrap()).await;
    child.wait_with_output().unwrap()
}

/// What a command printed that must have worked, without a word on standard error.
#[track_caller]
fn printed(output: &Output) -> &str {
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What a command said on standard error that must have failed with this code, and printed nothing.
#[track_caller]
fn failed(output: &Output, code: i32) -> &str {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    std::str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn an_order_is_placed_taken_and_finished_by_commands() {
    let shop = Shop::open(&[]).await;
    let customer = spawned(at(&shop, &["order", "--name", "Ada"]));
    shop.until("she is in line", |now| now.held() == 1).await;

    let line = at(&shop, &["line"]).output().unwrap();
    for row in ["waiting         1\n", "held_requests   1\n"] {
        assert!(printed(&line).contains(row), "{line:?}");
    }
    let line = at(&shop, &["line", "--output", "json"]).output().unwrap();
    let line: Value = serde_json::from_str(printed(&line)).unwrap();
    assert_eq!((&line["waiting"], &line["brewing"]), (&1.into(), &0.into()));

    let start = ["start", "--barista", "Bo & Co", "--output", "json"];
    let started = at(&shop, &start).output().unwrap();
    let started: Value = serde_json::from_str(printed(&started)).unwrap();
    let id = text(&started["order_id"]);
    assert_eq!(started["customer"], "Ada");

    let finish = ["finish", &id, "--attempt", "1"];
    let finished = at(&shop, &finish).output().unwrap();
    for word in [&id, "ready", "Bo & Co"] {
        assert!(printed(&finished).contains(word), "{finished:?}");
    }
    let customer = ended(customer).await;
    for word in [&id, "ready", "Ada"] {
        assert!(printed(&customer).contains(word), "{customer:?}");
    }
    shop.close().await;
}

#[tokio::test]
async fn ctrl_c_leaves_the_line() {
    let shop = Shop::open(&[]).await;
    // Shells start what runs in the background, this test perhaps, with Ctrl-C ignored.
    let command = odyssey_by("env", &["--default-signal=INT"]);
    let customer = spawned(started(command, &shop, &["order"]));
    shop.until("in line", |now| now.waiting() == 1).await;
    kill_process(Pid::from_child(&customer), Signal::INT).unwrap();
    let customer = ended(customer).await;
    assert_eq!(customer.status.signal(), Some(Signal::INT.as_raw()));
    shop.until("out of line", |now| now.waiting() == 0).await;
    shop.close().await;
}

#[tokio::test]
async fn an_order_that_is_not_waited_for_any_longer_stays_in_line() {
    let shop = Shop::open(&[]).await;
    let placed = at(&shop, &["order", "--wait", "0s"]).output().unwrap();
    assert!(printed(&placed).contains("position  1\n"), "{placed:?}");
    let started = shop.start().await;
    shop.finish(&started.id).await;
    shop.close().await;
}

#[tokio::test]
async fn a_barista_waits_for_an_order_that_comes_later_or_hears_that_there_is_none() {
    let shop = Shop::open(&[]).await;
    let none = at(&shop, &["start"]).output().unwrap();
    assert_eq!(printed(&none), "No order is waiting.\n");
    let none = at(&shop, &["start", "--output", "json"]).output().unwrap();
    assert_eq!(printed(&none), "null\n");
    let barista = spawned(at(&shop, &["start", "--wait", "2m"]));
    shop.until("the barista is idle", |now| now.idle_baristas() == 1)
        .await;
    let id = shop.promised().await;
    let barista = ended(barista).await;
    assert!(printed(&barista).contains(&id), "{barista:?}");
    shop.finish(&id).await;
    shop.close().await;
}

#[tokio::test]
async fn a_problem_ends_with_1_and_its_sentence_and_a_mistake_with_2() {
    let shop = Shop::open(&[]).await;
    let unknown = "019aaaaa-0000-7000-8000-000000000000";
    let nowhere = format!("http://{}/nowhere", shop.customers.address);
    for (arguments, code, message) in [
        (&["finish", unknown][..], 1, "404"),
        (&["order", "--name", ""], 1, "422"),
        (&["flood", "unblock", "192.0.2.7"], 1, "not blocked"),
        (&["flood", "unblock", "nowhere"], 1, "400"),
        (
            &["line", "--url", "http://127.0.0.1:1"],
            1,
            "cannot connect",
        ),
        (&["health", &nowhere], 1, "404"),
        (
            &["health", "http://127.0.0.1:1/healthz"],
            1,
            "cannot connect",
        ),
        (&["health", "ftp://127.0.0.1/"], 2, "is not a URL"),
        (&["health", "/healthz"], 2, "is not a URL"),
        (&["finish"], 2, "ORDER_ID"),
        (&["finish", "7"], 2, "7"),
        (&["finish", unknown, "--attempt", "0"], 2, "attempt"),
        (&["order", "--wait", "soon"], 2, "90s"),
        (&["order", "--wait", "10000h"], 2, "30 days"),
        (
            &["line", "--url", "http://ada:secret@127.0.0.1"],
            2,
            "is not a URL",
        ),
        (&["line", "--output", "xml"], 2, "table"),
        (&["flood"], 2, "unblock"),
    ] {
        let output = at(&shop, arguments).output().unwrap();
        let sentence = failed(&output, code);
        assert!(sentence.contains(message), "{arguments:?}: {sentence}");
        let lines = sentence.trim_end().lines().count();
        assert!(code == 2 || lines == 1, "{arguments:?}: {sentence}");
    }
    // A server that is no Odyssey's staff listener is not taken for an empty line.
    let customers = format!("http://{}", shop.customers.address);
    let output = at(&shop, &["line", "--url", &customers]).output().unwrap();
    assert!(failed(&output, 1).contains("404"), "{output:?}");
    shop.close().await;
}

#[tokio::test]
async fn the_server_is_the_one_of_the_option_then_the_environment_then_the_configuration() {
    let shop = Shop::open(&[]).await;
    let url = format!("http://{}", shop.staff.address);
    let unused = "http://127.0.0.1:1";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odyssey.toml");
    let toml = format!("[staff]\nlisten = \"{}\"\n", shop.staff.address);
    std::fs::write(&file, toml).unwrap();
    let file = file.to_str().unwrap();
    for (option, environment, config, reached) in [
        (Some(url.as_str()), Some(unused), None, true),
        (Some(unused), Some(url.as_str()), Some(file), false),
        (None, Some(url.as_str()), None, true),
        (None, Some(unused), Some(file), false),
        (None, None, Some(file), true),
        // An empty variable is none.
        (None, Some(""), Some(file), true),
    ] {
        let mut command = odyssey();
        command.arg("line");
        command.args(option.map(|url| ["--url", url]).into_iter().flatten());
        command.args(config.map(|file| ["--config", file]).into_iter().flatten());
        command.envs(environment.map(|url| ("ODYSSEY_URL", url)));
        let output = command.output().unwrap();
        let given = (option, environment, config);
        assert_eq!(output.status.success(), reached, "{given:?}: {output:?}");
    }
    let mut command = odyssey();
    command.arg("line").env("ODYSSEY_URL", "localhost:8001");
    let output = command.output().unwrap();
    let message = failed(&output, 2);
    assert!(message.contains("ODYSSEY_URL") && message.contains("is not a URL"));
    // It is no key of the configuration: a server that inherits it starts.
    let mut command = odyssey();
    command.arg("config").env("ODYSSEY_URL", &url);
    printed(&command.output().unwrap());
    shop.close().await;
}

#[tokio::test]
async fn a_health_check_without_a_url_asks_the_address_of_the_configuration() {
    let shop = Shop::open(&[("customers.listen", "0.0.0.0:0")]).await;
    let port = shop.customers.address.port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odyssey.toml");
    for (listen, well) in [
        (format!("127.0.0.1:{port}"), true),
        // Every address of this machine, the loopback one among them.
        (format!("0.0.0.0:{port}"), true),
        ("127.0.0.1:1".to_owned(), false),
        ("127.0.0.1:0".to_owned(), false),
    ] {
        let mut by_environment = odyssey();
        by_environment.env(variable("customers.listen"), &listen);
        by_environment.arg("health");
        let toml = format!("[customers]\nlisten = \"{listen}\"\n");
        std::fs::write(&file, toml).unwrap();
        let mut by_file = odyssey();
        by_file.args(["health", "--config"]).arg(&file);
        for mut command in [by_environment, by_file] {
            let output = command.output().unwrap();
            assert_eq!(output.status.success(), well, "{listen}: {output:?}");
            assert_eq!(output.stderr.is_empty(), well, "{listen}: {output:?}");
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn an_address_that_is_cut_off_is_listed_and_let_back_in() {
    let shop = Shop::open(&[
        ("flood.trusted_proxies", "127.0.0.1"),
        ("flood.burst", "1"),
        ("flood.refill", "1h"),
        ("flood.cutoff_after", "1"),
    ])
    .await;
    let none = at(&shop, &["flood", "list"]).output().unwrap();
    assert!(printed(&none).ends_with("No address is blocked.\n"));
    let ask = order()
        .prefer("respond-async")
        .header("X-Forwarded-For", "192.0.2.7");
    while shop.customers.ask(ask.clone()).await.status != 429 {}
    let listed = at(&shop, &["flood", "list"]).output().unwrap();
    let table = printed(&listed);
    assert!(table.contains("ADDRESS    REASON  UNTIL"), "{table}");
    assert!(table.contains("\n192.0.2.7  rate    "), "{table}");
    let unblocked = at(&shop, &["flood", "unblock", "192.0.2.7"]).output();
    assert_eq!(printed(&unblocked.unwrap()), "address  192.0.2.7\n");
    let flood = shop.staff.ask(get("/flood")).await.expect(200);
    assert_eq!(flood["cut_off"], Value::Array(vec![]));
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_reader_that_has_closed_the_pipe_ends_a_command_quietly() {
    let shop = Shop::open(&[]).await;
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["help", "serve"],
        &["config"],
        &["config", "--defaults"],
        &["openapi"],
        &["completions", "bash"],
        &["man"],
        &["line"],
        &["line", "--output", "json"],
        &["start"],
        &["order", "--wait", "0s"],
        &["flood", "list"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = at(&shop, arguments).stdout(writer).output().unwrap();
        let quiet = output.status.success() && output.stderr.is_empty();
        assert!(quiet, "{arguments:?}: {output:?}");
    }
    shop.serve_all().await;
    shop.close().await;
}

#[test]
fn output_that_cannot_be_written_is_said() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = odyssey().arg("config").stdout(full).output().unwrap();
    assert!(failed(&output, 1).contains("cannot write to standard output"));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let commands = [
        "serve",
        "config",
        "health",
        "order",
        "start",
        "finish",
        "line",
        "flood",
        "packages",
        "couriers",
        "openapi",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = odyssey().args(["completions", shell]).output().unwrap();
        let script = printed(&output);
        for command in commands {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let output = odyssey().arg("man").output().unwrap();
    assert!(printed(&output).contains(".TH odyssey 1"));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let written = odyssey().args(["man", "--dir"]).arg(&pages).output();
    assert_eq!(printed(&written.unwrap()), "");
    let written: BTreeSet<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(written.contains("odyssey.1"), "{written:?}");
    assert!(written.contains("odyssey-flood-unblock.1"), "{written:?}");
    for command in commands {
        let page = format!("odyssey-{command}.1");
        assert!(written.contains(&page), "{page} is missing: {written:?}");
    }
}
