//! A headless Chromium, driven through the WebDriver protocol.
//!
//! `CHROMEDRIVER` names chromedriver; without it the one in `PATH` is taken. Where there is none, a
//! test says loudly that it is skipped, and passes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use url::{ParseError, Url};

/// One browser at a time: each needs a processor.
static TURN: Mutex<()> = Mutex::const_new(());

/// How long a page has to show what is waited for.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Notes what the policy refuses, for all pages of a session.
const WATCH_POLICY: &str = "addEventListener('securitypolicyviolation', (event) => {
    const all = JSON.parse(sessionStorage.getItem('violations') || '[]');
    all.push(event.violatedDirective + ' ' + event.blockedURI);
    sessionStorage.setItem('violations', JSON.stringify(all));
});";

pub(super) const TAB: &str = "\u{e004}";
pub(super) const ENTER: &str = "\u{e007}";
pub(super) const SPACE: &str = "\u{e00d}";
pub(super) const ESCAPE: &str = "\u{e00c}";

/// chromedriver; it and its browsers end with the test.
struct Driver {
    process: Child,
    address: String,
}

impl Driver {
    fn start() -> Option<Self> {
        let program = std::env::var_os("CHROMEDRIVER").unwrap_or_else(|| "chromedriver".into());
        let started = Command::new(program)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut process) = started else {
            // Past the harness, which keeps what passing tests print to itself.
            let line = "SKIPPED: no chromedriver in CHROMEDRIVER or PATH: install Chromium and its \
                        driver (Debian: chromium-driver) to test the page in a browser\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            line.rsplit_once("started successfully on port ")
                .map(|(_, port)| port.trim_end_matches('.').to_owned())
        });
        let address = format!("127.0.0.1:{}", port.expect("chromedriver names its port"));
        Some(Self { process, address })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Ends the browsers too, which outlive a driver that is killed.
        if let Ok(mut stream) = TcpStream::connect(&self.address) {
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
            let head = format!("GET /shutdown HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
            stream.write_all(head.as_bytes()).ok();
            drop(stream.read(&mut [0; 64]));
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A browser with one window.
pub(super) struct Browser {
    pub(super) client: Client,
    // Dropped before the turn is given on.
    _driver: Driver,
    _turn: MutexGuard<'static, ()>,
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// A browser, or `None` where there is no chromedriver.
    pub(super) async fn open() -> Option<Self> {
        let turn = TURN.lock().await;
        let driver = Driver::start()?;
        let capabilities: Capabilities = serde_json::from_value(json!({
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless=new",
                // Containers have no sandbox; only our own page is shown.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--force-prefers-reduced-motion",
                "--window-size=1280,900",
            ] },
        }))
        .unwrap();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{}", driver.address))
            .await
            .expect("chromedriver starts Chromium");
        let browser = Self { client, _driver: driver, _turn: turn };
        browser
            .devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH_POLICY }))
            .await;
        Some(browser)
    }

    /// A command of the protocol of the developer tools.
    pub(super) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(Vendor { path: "goog/cdp/execute", body }).await.unwrap()
    }

    pub(super) async fn goto(&self, url: &str) {
        self.client.goto(url).await.unwrap();
        // chromedriver returns at times before styles and scripts are there.
        self.until("document.readyState === 'complete'").await;
    }

    /// Shows pages in light or dark, in a window of this width.
    pub(super) async fn look(&self, scheme: &str, width: u32) {
        let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": feature })).await;
        let size =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Runs the body of a function in the page.
    pub(super) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Waits until an expression is true in the page.
    pub(super) async fn until(&self, expression: &str) {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < PAGE_TIMEOUT {
            // A page that is just left answers with an error.
            let script = format!("return !!({expression})");
            if self.client.execute(&script, Vec::new()).await.is_ok_and(|v| v == json!(true)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let page = self.run("return location.href + '\\n' + document.body.innerText").await;
        panic!("never true: {expression}\n{}", page.as_str().unwrap_or_default());
    }

    pub(super) async fn find(&self, css: &str) -> Element {
        let wait = self.client.wait().at_most(PAGE_TIMEOUT);
        wait.for_element(Locator::Css(css)).await.unwrap_or_else(|e| panic!("{css}: {e}"))
    }

    pub(super) async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    /// The visible text of an element.
    pub(super) async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.unwrap()
    }

    /// Presses keys where the focus is.
    pub(super) async fn press(&self, keys: &str) {
        let press = |actions: KeyActions, value| {
            actions.then(KeyAction::Down { value }).then(KeyAction::Up { value })
        };
        let actions = keys.chars().fold(KeyActions::new("keyboard".to_owned()), press);
        self.client.perform_actions(actions).await.unwrap();
    }

    /// What the browser logged since it was last asked.
    pub(super) async fn log(&self) -> Vec<Value> {
        let command = Vendor { path: "se/log", body: json!({ "type": "browser" }) };
        let entries = self.client.issue_cmd(command).await.unwrap();
        entries.as_array().cloned().unwrap_or_default()
    }

    /// What the page's policy refused since the session began, and the errors of its script since
    /// the log was last read.
    pub(super) async fn faults(&self) -> Vec<String> {
        let refused = self.run("return JSON.parse(sessionStorage.violations || '[]')").await;
        let mut faults: Vec<_> =
            refused.as_array().unwrap().iter().map(ToString::to_string).collect();
        // A refused request is a line of the network, not an error of the script.
        let is_fault = |entry: &&Value| entry["level"] == "SEVERE" && entry["source"] != "network";
        faults.extend(self.log().await.iter().filter(is_fault).map(ToString::to_string));
        faults
    }
}
