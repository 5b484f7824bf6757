//! The pictures of the documentation. Takes three minutes:
//!
//! ```text
//! cargo test --test it page::screenshots -- --ignored
//! pngquant --force --ext .png --speed 1 --strip --nofs 48 docs/img/*.png
//! ```

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::time::sleep;

use super::browser::Browser;
use super::scene::Scene;
use super::service::TOKEN;
use crate::support::TestDir;

/// Writes what is shown, from the top to at most a height.
async fn picture(browser: &Browser, name: &str, width: u32, max_height: f64) {
    let size = browser.devtools("Page.getLayoutMetrics", json!({})).await;
    let height = size["cssContentSize"]["height"].as_f64().unwrap().min(max_height);
    let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
    let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
    let shot = browser.devtools("Page.captureScreenshot", how).await;
    let bytes = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/img");
    std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the pictures of docs/img, which a person looks at"]
async fn views_are_drawn_in_light_dark_and_small() {
    let Some(browser) = Browser::open().await else { return };
    let mut scene = Scene::start(TestDir::named("shop"), "show_values = true").await;
    let locked = Scene::start(TestDir::new(), &format!("token = \"{TOKEN}\"")).await;
    scene.pass(20, 12).await;
    scene.account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    scene.pass(10, 12).await;
    scene.account.set_faults(&json!({ "error_rate": 0.0 })).await;
    scene.pass(20, 12).await;
    scene.append(4_000);
    // The forecast looks at the last minute.
    scene.pass(65, 6).await;
    let id = scene.dead_letter().await;
    let url = |path: &str| scene.service.url(path);
    let views = [
        ("status", url("/")),
        ("dead-letters", url("/dead-letters")),
        ("dead-letter", url(&format!("/dead-letters/{id}"))),
        ("tap", url("/tap")),
        ("playground", url(&format!("/playground?letter={id}"))),
        ("login", locked.service.url("/login?to=%2Ftap")),
    ];
    for (look, scheme, width, height) in [
        ("light", "light", 1280, 1000.0),
        ("dark", "dark", 1280, 1000.0),
        ("small", "light", 360, 1100.0),
    ] {
        browser.look(scheme, width).await;
        for (view, url) in &views {
            browser.goto(url).await;
            match *view {
                "tap" => {
                    browser.click("#tap-toggle").await;
                    scene.append(20);
                    browser.until("document.querySelectorAll('.tried').length >= 2").await;
                }
                "playground" => browser.until("document.querySelector('.tried')").await,
                _ => {}
            }
            sleep(Duration::from_millis(300)).await;
            picture(&browser, &format!("{view}-{look}"), width, height).await;
        }
    }
}
