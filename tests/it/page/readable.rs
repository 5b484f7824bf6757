//! Whether everybody can read the page: by rules of our own, and by axe-core's where it is.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::browser::Browser;
use super::service::{STRICT, Service, parsed};
use crate::support::{EmulatorAccount, TestDir};

/// Returns what is wrong with the page that is open.
const RULES: &str = include_str!("rules.js");

/// `AXE_JS` names axe-core's script; `.ci/run` puts it into target/axe.
fn axe() -> Option<String> {
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe/node_modules/axe-core/axe.min.js");
    let path = std::env::var_os("AXE_JS").map_or(installed, PathBuf::from);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        let line = format!(
            "SKIPPED: axe-core is not at {}: set AXE_JS, or `npm install --prefix target/axe axe-core`\n",
            path.display()
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    text
}

async fn assert_axe_finds_nothing(browser: &Browser, axe: &str, page: &str) {
    browser.run(axe).await;
    let script = "const done = arguments[arguments.length - 1];
        axe.run().then((found) => done(found.violations), (error) => done([String(error)]));";
    let found = browser.client.execute_async(script, Vec::new()).await.unwrap();
    let brief = |rule: &Value| {
        json!({ "id": rule["id"], "impact": rule["impact"], "help": rule["help"],
        "at": rule["nodes"].as_array().map(|all| all.iter().map(|n| n["html"].clone()).collect::<Vec<_>>()) })
    };
    let found: Vec<_> = found.as_array().unwrap().iter().map(brief).collect();
    assert!(found.is_empty(), "{page}: {}", serde_json::to_string_pretty(&found).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_view_can_be_read_by_everybody() {
    // Guarantees names of all controls, one heading of the first level and no level left out,
    // landmarks, table headers, contrast of every text, and no sideways scrolling, on each view, in
    // light and dark, at 360 pixels and wide; axe-core finds nothing.
    let Some(browser) = Browser::open().await else { return };
    let axe = axe();
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let long = "x".repeat(200);
    let records = format!(
        "{{\"kind\":\"signup\",\"id\":\"u1\"}}\n{{\"kind\":\"signup\",\"n\":\"{long}\"}}\n{{\"kind\":\"sign-up\",\"id\":\"u1\"}}\n"
    );
    place.write("records.ndjson", &records);
    let service = Service::start(&place, &account.endpoint(), STRICT, "").await;
    let listed =
        service.until("/api/v1/dead-letters", |_, text| parsed(text)["matching"] == 1).await;
    let id = &parsed(&listed)["dead_letters"][0]["id"];
    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    std::fs::write(
        place.path().join("records.ndjson"),
        records + "{\"kind\":\"signup\",\"id\":\"u2\"}\n",
    )
    .unwrap();
    service.until("/api/v1/status", |_, text| parsed(text)["state"] == "waiting").await;

    let locked = TestDir::new();
    let api = "token = \"a-token-of-the-test\"";
    let locked = Service::start(&locked, &account.endpoint(), STRICT, api).await;
    let pages = [
        service.url("/"),
        service.url("/dead-letters"),
        service.url("/dead-letters?reason=no_such"),
        service.url(&format!("/dead-letters/{id}")),
        service.url("/dead-letters/999"),
        service.url("/tap"),
        service.url("/playground"),
        service.url("/no-such-page"),
        locked.url("/login?to=%2Ftap"),
    ];
    let mut rules = 0;
    for page in &pages {
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
            browser.look(scheme, width).await;
            browser.goto(page).await;
            if page.ends_with("/playground") {
                browser.until("document.querySelector('#play-result pre')").await;
            }
            let checked = browser.run(RULES).await;
            let log = browser.log().await;
            assert_eq!(checked["wrong"], json!([]), "{page} {scheme} {width}: {log:?}");
            let is_error =
                |entry: &&Value| entry["level"] == "SEVERE" && entry["source"] != "network";
            assert_eq!(log.iter().find(is_error), None);
            rules += checked["checked"].as_u64().unwrap();
            if let Some(axe) = &axe {
                assert_axe_finds_nothing(&browser, axe, page).await;
            }
        }
    }
    assert!(rules > 1_000, "{rules} checks");
    assert_eq!(browser.faults().await, Vec::<String>::new());

    // The rules see what is wrong.
    browser
        .run(
            "document.querySelector('main').innerHTML =
                '<h1>a</h1><h4>b</h4><button></button><input><p class=\"lead\" id=p>c</p><table><tr><td>d</td></tr></table>';
            document.getElementById('p').style.color = '#eee';
            document.getElementById('p').style.width = '2000px';
            document.documentElement.lang = '';",
        )
        .await;
    browser.look("light", 1280).await;
    let wrong = browser.run(RULES).await["wrong"].as_array().unwrap().len();
    assert!(wrong >= 7, "{wrong} of 7 faults were found");
    account.close().await;
}
