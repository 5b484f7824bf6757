//! The status view in a browser while User.com fails and heals.

use serde_json::json;
use usercom_sink::emulator::Faults;

use super::browser::Browser;
use super::service::{STRICT, Service};
use crate::support::{EmulatorAccount, TestDir};

fn line(n: u32) -> String {
    format!("{{\"kind\":\"signup\",\"id\":\"u{n}\"}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_view_changes_live_as_the_server_fails_and_heals() {
    // An open page shows an outage, its error with what to do, and its end, without being loaded
    // again; it says so when the program is gone; its policy refuses nothing of its own.
    let Some(browser) = Browser::open().await else { return };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let records = place.write("records.ndjson", &line(1));
    let service = Service::start(&place, &account.endpoint(), STRICT, "").await;
    browser.goto(&service.url("/")).await;
    browser.until("document.querySelector('.hero .pill').innerText === 'running'").await;
    browser.until("/\\b1 delivered/.test(document.querySelector('.tiles').innerText)").await;
    browser.run("window.loadedOnce = true").await;

    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    std::fs::write(&records, line(1) + &line(2)).unwrap();
    browser.until("document.querySelector('.hero .pill').innerText === 'waiting'").await;
    let reason = browser.text(".hero .reason").await;
    assert!(reason.contains("waiting for User.com since"), "{reason}");
    let errors = browser.text(".errors").await;
    assert!(errors.contains("status_503"), "{errors}");
    assert!(!browser.text(".errors .advice").await.is_empty(), "{errors}");

    account.set_faults(&json!({ "error_rate": 0.0 })).await;
    browser.until("document.querySelector('.hero .pill').innerText === 'running'").await;
    browser.until("/\\b2 delivered/.test(document.querySelector('.tiles').innerText)").await;
    assert_eq!(browser.run("return window.loadedOnce").await, true, "it was loaded again");
    assert_eq!(browser.faults().await, Vec::<String>::new());

    drop(service);
    browser
        .until("document.getElementById('connection').innerText.includes('No connection')")
        .await;
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tap_shows_records_with_their_values_hidden() {
    // An open tap shows what passes, with names and types in place of values.
    let Some(browser) = Browser::open().await else { return };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let records = place.write("records.ndjson", &line(1));
    let service = Service::start(&place, &account.endpoint(), STRICT, "").await;
    browser.goto(&service.url("/tap")).await;
    browser.click("#tap-toggle").await;
    browser.until("document.getElementById('tap-state').innerText === 'The tap is open.'").await;
    let mut text = line(1);
    for n in 2.. {
        text += &line(n);
        std::fs::write(&records, &text).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if browser.run("return document.querySelectorAll('.tried').length").await != 0 {
            break;
        }
        assert!(n < 100, "the tap shows nothing");
    }
    let shown = browser.text("#tapped").await;
    assert!(shown.contains("\"id\": \"string\"") && shown.contains("identify"), "{shown}");
    assert!(!shown.contains("\"u1") && !shown.contains("u2"), "{shown}");
    browser.click("#tap-toggle").await;
    browser.until("document.getElementById('tap-state').innerText === 'The tap is closed.'").await;
    assert_eq!(browser.faults().await, Vec::<String>::new());
    account.close().await;
}
