//! A dead letter in a browser: read, its mapping mended in the playground, replayed.

use serde_json::json;
use usercom_sink::emulator::Faults;

use super::browser::{Browser, ENTER};
use super::service::{STRICT, Service, TOKEN, parsed};
use crate::support::{EmulatorAccount, TestDir};

/// A record whose texts would run as a script, or close an element, were they not escaped.
const HOSTILE: &str = r#"{"kind":"signup","other":"</pre></textarea><script>pwned=1</script><img src=x onerror=pwned=1>"}"#;

async fn sign_in(browser: &Browser, service: &Service, path: &str) {
    browser.goto(&service.url(path)).await;
    browser.find("#token").await.send_keys(&format!("{TOKEN}{ENTER}")).await.unwrap();
    browser.until(&format!("location.pathname === '{path}'")).await;
}

/// The page has no element that a record brought, and no script of a record ran.
async fn assert_record_is_text(browser: &Browser) {
    assert_eq!(browser.run("return typeof pwned").await, "undefined");
    assert_eq!(
        browser.run("return document.querySelectorAll('main img, main script').length").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letter_is_read_mended_in_the_playground_and_replayed() {
    // Guarantees the way of a person from a dead letter to its delivery, with hostile texts in the
    // record: sign in, read it, mend the mapping while the result follows, reload, replay.
    let Some(browser) = Browser::open().await else { return };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    place.write("records.ndjson", &format!("{HOSTILE}\n"));
    let api = format!("token = \"{TOKEN}\"");
    let service = Service::start(&place, &account.endpoint(), STRICT, &api).await;
    service.until("/api/v1/dead-letters", |_, text| parsed(text)["matching"] == 1).await;

    sign_in(&browser, &service, "/dead-letters").await;
    assert!(browser.text(".letters tbody").await.contains("missing_required"));
    assert_record_is_text(&browser).await;
    browser.click(".letters tbody th a").await;
    browser.until("/^.dead-letters.\\d+$/.test(location.pathname)").await;
    let record = browser.text("pre[aria-label=Record]").await;
    assert!(record.contains("<script>pwned=1</script>"), "{record}");
    assert_record_is_text(&browser).await;

    browser.click("main a[href^='/playground']").await;
    browser.until("document.querySelector('#play-result .error')").await;
    let records = browser.find("#records").await.prop("value").await.unwrap().unwrap();
    assert!(records.contains("<script>pwned=1</script>"), "{records}");
    assert!(browser.text("#play-result").await.contains("Dead letter"));
    let file = browser.find("textarea.file").await;
    let text = file.prop("value").await.unwrap().unwrap();
    let broken = text.replace("call = \"identify\"", "call = \"identfy\"");
    file.clear().await.unwrap();
    file.send_keys(&broken).await.unwrap();
    browser.until("document.querySelector('#play-result .faults pre')").await;
    let fault = browser.text("#play-result .faults pre").await;
    assert!(fault.contains("identify") && fault.contains("error"), "{fault}");
    let mended = text.replace("path = \".id\", required = true", "value = \"u9\"");
    assert_ne!(text, mended);
    file.clear().await.unwrap();
    file.send_keys(&mended).await.unwrap();
    browser.until("document.querySelector('#play-result .route')").await;
    let result = browser.text("#play-result").await;
    assert!(result.contains("u9") && !result.contains("Dead letter"), "{result}");
    let tests = browser.run("return document.getElementById('tests-text').textContent").await;
    assert!(tests.as_str().unwrap().contains("[[tests]]"), "{tests}");
    assert_record_is_text(&browser).await;

    let text = std::fs::read_to_string(&service.config).unwrap();
    let mended = text.replace("path = \".id\", required = true", "value = \"u9\"");
    std::fs::write(&service.config, mended).unwrap();
    let pid = service.program.0.id().to_string();
    std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    let reloaded = "document.querySelector('textarea.file').value.includes('\"u9\"')";
    for _ in 0..100 {
        browser.goto(&service.url("/playground")).await;
        if browser.run(&format!("return {reloaded}")).await == json!(true) {
            break;
        }
    }
    browser.until(reloaded).await;

    browser.goto(&service.url("/dead-letters")).await;
    browser.click(".letters tbody th a").await;
    browser.click("[data-action=replay-one]").await;
    browser.until("document.getElementById('result')?.innerText.includes('1 settled')").await;
    assert!(browser.text(".empty-state").await.contains("no dead letters"));
    assert_eq!(account.get("users-by-id/u9/").await["custom_id"], "u9");
    assert_eq!(browser.faults().await, Vec::<String>::new());
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_refuses_what_a_record_might_bring() {
    // The policy holds in a real browser, should escaping ever fail: no inline script, no handler,
    // no style, nothing from another host, no frame; and the watch of these tests sees it.
    let Some(browser) = Browser::open().await else { return };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let service = Service::start(&place, &account.endpoint(), STRICT, "").await;
    browser.goto(&service.url("/")).await;
    assert_eq!(browser.faults().await, Vec::<String>::new());
    browser
        .run(
            "const add = (name, set) => {
                const element = document.createElement(name);
                set(element);
                document.body.append(element);
            };
            add('script', (e) => { e.textContent = 'pwned = 1'; });
            add('div', (e) => { e.innerHTML = '<img src=data:, onerror=\"pwned=1\">'; });
            add('img', (e) => { e.src = 'http://127.0.0.1:9/x.png'; });
            add('style', (e) => { e.textContent = 'body { display: none }'; });
            add('iframe', (e) => { e.src = '/tap'; });
            add('script', (e) => { e.src = 'http://127.0.0.1:9/x.js'; });",
        )
        .await;
    browser.until("JSON.parse(sessionStorage.violations || '[]').length >= 6").await;
    assert_eq!(browser.run("return typeof pwned").await, "undefined");
    assert_eq!(browser.run("return getComputedStyle(document.body).display").await, "block");
    account.close().await;
}
