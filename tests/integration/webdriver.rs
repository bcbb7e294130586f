//! A client of `WebDriver` (W3C), for tests that type, click and navigate in a real browser: Debian's `chromedriver`, which
//! runs Chromium without a screen. A page that needs no input is cheaper to look at with `browser::visit`.
//!
//! Every method panics with the driver's message if it fails.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{LIMIT, found};
use tokio::time::timeout;

use crate::browser::SWITCHES;
use crate::client::{Ask, Door, post};
use crate::shop::text;

/// The member by which a `WebDriver` object refers to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that are no characters, for [`Element::type_in`].
pub(crate) mod key {
    pub(crate) const DOWN: &str = "\u{e015}";
    pub(crate) const TAB: &str = "\u{e004}";
    pub(crate) const ENTER: &str = "\u{e007}";
}

/// A browser with a profile of its own, and so with its own cookies. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    // Ends before the profile is deleted.
    driver: Driver,
    session: String,
    _profile: TempDir,
}

/// The process of the driver, and of the browser, which ends with it.
#[derive(Debug)]
struct Driver {
    process: Child,
    door: Door,
    browser: Option<u64>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        drop(self.process.kill());
        drop(self.process.wait());
        // The browser notices that its pipe is closed, and writes to its profile until then. A zombie has no command line.
        let command_line = self.browser.map(|pid| format!("/proc/{pid}/cmdline"));
        let runs = |file: &String| std::fs::read(file).is_ok_and(|line| !line.is_empty());
        let deadline = Instant::now() + LIMIT;
        while command_line.as_ref().is_some_and(runs) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Driver {
    /// At a port that the system chooses, which the driver writes to `log`. It wants the same one of IPv4 and of IPv6, and ends if
    /// one of them is taken: then another one is tried.
    async fn start(log: &Path) -> Self {
        loop {
            let file = File::create(log).unwrap();
            // It ends with the test, even if that is killed.
            let process = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "chromedriver", "--port=0"])
                .stdin(Stdio::null())
                .stdout(file.try_clone().unwrap())
                .stderr(file)
                .spawn()
                .unwrap();
            let mut driver = Self {
                process,
                door: Door::at(([127, 0, 0, 1], 0).into()),
                browser: None,
            };
            let port = found("the driver listens, or its port is taken", async || {
                let ended = driver.process.try_wait().unwrap().is_some();
                let said = std::fs::read_to_string(log).unwrap();
                if ended {
                    let install = "is it installed (scripts/install-tools.sh test)?";
                    let is_taken = said.contains("port not available");
                    assert!(is_taken, "chromedriver ended; {install} {said}");
                    return Some(None);
                }
                let (_, port) = said.split_once("started successfully on port ")?;
                Some(Some(port.split_once('.')?.0.parse().ok()?))
            });
            if let Some(port) = port.await {
                driver.door.address.set_port(port);
                return driver;
            }
        }
    }

    /// The value of a command's answer. Starting a browser may take longer than other answers on a busy machine.
    async fn ask(&self, ask: Ask) -> Value {
        let answered = Box::pin(async { self.door.connect().await.ask(&ask).await });
        let answer = timeout(LIMIT, answered).await;
        let answer = answer.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {ask:?}"));
        assert_eq!(answer.status, 200, "{answer} to {ask:?}");
        answer.json()["value"].take()
    }
}

impl Browser {
    /// With more switches than the usual ones.
    pub(crate) async fn open(more: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Driver::start(&profile.path().join("driver.log")).await;
        let data = format!("--user-data-dir={}", profile.path().join("data").display());
        // Through a pipe: no other process can use it, and the browser ends with the driver.
        let own = ["--remote-debugging-pipe", &data];
        let switches = [&SWITCHES, more, &own].concat();
        let wanted = json!({
            "goog:chromeOptions": {"args": switches},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let ask = post("/session").json(&json!({"capabilities": {"alwaysMatch": wanted}}));
        let begun = driver.ask(ask).await;
        driver.browser = begun["capabilities"]["goog:processID"].as_u64();
        Self {
            driver,
            session: text(&begun["sessionId"]),
            _profile: profile,
        }
    }

    async fn get(&self, command: &str) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        self.driver.ask(Ask::new(Method::GET, path)).await
    }

    async fn post(&self, command: &str, parameters: &Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        self.driver.ask(post(path).json(parameters)).await
    }

    /// Opens an address as a person does who enters it, and waits until the page is loaded.
    pub(crate) async fn visit(&self, url: &str) {
        self.post("url", &json!({ "url": url })).await;
    }

    pub(crate) async fn url(&self) -> String {
        text(&self.get("url").await)
    }

    /// Waits until the page has this address, or one that begins with it and a `?`.
    pub(crate) async fn arrives_at(&self, url: &str) {
        let what = format!("the browser is at {url}");
        found(&what, async || {
            let now = self.url().await;
            (now.split('?').next() == Some(url) || now == url).then_some(())
        })
        .await;
    }

    pub(crate) async fn title(&self) -> String {
        text(&self.get("title").await)
    }

    /// The document as it is now, as HTML.
    pub(crate) async fn source(&self) -> String {
        text(&self.get("source").await)
    }

    /// Those that the page's address gets, with what scripts cannot read.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        self.get("cookie").await.as_array().unwrap().clone()
    }

    /// The lines of the console since the last call: `level`, `source` and `message` of each.
    pub(crate) async fn console(&self) -> Vec<Value> {
        let lines = self.post("se/log", &json!({"type": "browser"})).await;
        lines.as_array().unwrap().clone()
    }

    /// The result of a function's body that runs in the page; if that is a promise, what it resolves to.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let parameters = json!({"script": script, "args": []});
        self.post("execute/sync", &parameters).await
    }

    /// Waits until a function's body returns something that JavaScript counts as true.
    pub(crate) async fn until(&self, what: &str, script: &str) -> Value {
        let script = format!("return (() => {{ {script} }})() || null");
        let look = async || Some(self.run(&script).await).filter(|value| !value.is_null());
        found(what, look).await
    }

    /// The first displayed element of a CSS selector, once there is one.
    pub(crate) async fn find(&self, selector: &str) -> Element<'_> {
        let all = format!("[...document.querySelectorAll({})]", json!(selector));
        let script = format!("return {all}.find(element => element.checkVisibility())");
        let element = self.until(selector, &script).await;
        Element {
            browser: self,
            id: text(&element[ELEMENT]),
        }
    }

    /// What the window shows, as PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let image = text(&self.get("screenshot").await);
        BASE64_STANDARD.decode(image).unwrap()
    }

    /// A command of the Chrome `DevTools` protocol, for what `WebDriver` lacks, such as the screen of a phone.
    pub(crate) async fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let parameters = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", &parameters).await
    }

    /// The open tabs. Commands are for the one that was [chosen](Self::switch), at first the only one.
    pub(crate) async fn tabs(&self) -> Vec<String> {
        let tabs = self.get("window/handles").await;
        tabs.as_array().unwrap().iter().map(text).collect()
    }

    pub(crate) async fn switch(&self, tab: &str) {
        self.post("window", &json!({ "handle": tab })).await;
    }
}

/// An element of the page that was open when it was found.
#[derive(Debug)]
pub(crate) struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Element<'_> {
    /// The text that it displays.
    pub(crate) async fn text(&self) -> String {
        let command = format!("element/{}/text", self.id);
        text(&self.browser.get(&command).await)
    }

    /// Presses the keys of a text in it, with those of [`key`].
    pub(crate) async fn type_in(&self, keys: &str) {
        let command = format!("element/{}/value", self.id);
        self.browser.post(&command, &json!({ "text": keys })).await;
    }

    /// Clicks on its middle.
    pub(crate) async fn click(&self) {
        let command = format!("element/{}/click", self.id);
        self.browser.post(&command, &json!({})).await;
    }
}
