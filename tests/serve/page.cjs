// Uses the server's page in a real browser, as people do.
//
// node page.cjs URL: the server serves the built-in model. Needs chromium, and puppeteer-core in NODE_PATH.
// Exits 1 with a line for each check that fails.
"use strict";
const puppeteer = require("puppeteer-core");
const url = process.argv[2];
let failed = 0;

function check(what, holds) {
  if (!holds) {
    failed += 1;
    console.log(what);
  }
}

/** What the next requests to an endpoint are answered with, in place of the server. */
let canned = {};

const stream = (...texts) => ({
  contentType: "text/event-stream",
  body:
    texts.map((text) => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`).join("") +
    "data: [DONE]\n\n",
});

const HOSTILE = [
  '<img src=x onerror="window.hit=1"> <script>window.hit=1</script>',
  "[bad](javascript:window.hit=1) [good](https://example.com/a) **bold** `code`",
  "# Title",
  "- one\n- two",
  "> quoted",
  "| a | b |\n| - | - |\n| 1 | 2 |",
  "```js\nlet x = `<b>`;" + " wide".repeat(60) + "\n```",
].join("\n\n");

async function main() {
  const options = { executablePath: "/usr/bin/chromium", args: ["--no-sandbox"], headless: true };
  const browser = await puppeteer.launch(options);
  const page = await browser.newPage();
  await page.setViewport({ width: 390, height: 800 });
  const foreign = [],
    errors = [];
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    const { origin, pathname } = new URL(request.url());
    if (origin !== url && !request.url().startsWith("data:")) foreign.push(request.url());
    if (canned[pathname]) request.respond(canned[pathname]);
    else request.continue();
  });
  page.on("pageerror", (error) => errors.push(error.message));
  const count = (selector) => page.$$eval(selector, (all) => all.length);
  const text = (selector) => page.$eval(selector, (element) => element.innerText);
  const idle = () => page.waitForFunction("!document.querySelector('#send').hidden");
  const press = (label) =>
    page.evaluate((label) => {
      [...document.querySelectorAll("button")].find((b) => !b.hidden && b.innerText === label).click();
    }, label);
  const say = async (words) => {
    await page.type("#box", words);
    await page.keyboard.press("Enter");
  };

  await page.goto(url);
  await page.waitForFunction("document.querySelector('#model').innerText !== ''");
  check("the box has the focus", (await page.evaluate("document.activeElement.id")) === "box");
  await page.evaluate("document.querySelector('#max_tokens').value = 20");
  await say("Tell me of Lily.");
  await page.waitForSelector("article.assistant");
  await idle();
  check("an answer", (await text("article.assistant .text")).length > 5);
  check("tokens per second", (await text("article.assistant .tools")).includes("tokens per second"));
  await page.type("#box", "two");
  await page.keyboard.down("Shift");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Shift");
  check("Shift+Enter is a new line", (await page.$eval("#box", (box) => box.value)) === "two\n");
  await page.$eval("#box", (box) => {
    box.value = "";
  });
  await page.reload();
  check("a reload keeps the conversation", (await count("article")) === 2);
  await press("Regenerate");
  await page.waitForSelector("#stop:not([hidden])").catch(() => undefined);
  await idle();
  check("an answer again", (await count("article")) === 2);
  await press("Edit");
  check(
    "a message is edited",
    (await page.$eval("#box", (box) => box.value)) === "Tell me of Lily." && (await count("article")) === 0,
  );
  await page.$eval("#box", (box) => {
    box.value = "";
  });

  canned = { "/v1/chat/completions": stream(HOSTILE.slice(0, 30), HOSTILE.slice(30)) };
  await say("x");
  await page.waitForSelector("article.assistant pre");
  await idle();
  check(
    "no HTML of an answer lives",
    (await page.evaluate("window.hit")) === undefined &&
      (await count("article script, article .text img")) === 0,
  );
  const links = await page.$$eval("article a", (all) => all.map((a) => a.href));
  check("links to the web alone", links.join() === "https://example.com/a");
  for (const part of ["strong", "code", "li", "blockquote", "td", "h3", "pre .copy"]) {
    check(`Markdown: ${part}`, (await count(`article.assistant ${part}`)) > 0);
  }
  const isNarrow =
    "document.documentElement.scrollWidth <= 390 && document.querySelector('#log').scrollWidth <= 390";
  check("no sideways scrolling", await page.evaluate(isNarrow));

  const failure = { error: { message: "all is lost" } };
  canned = {
    "/v1/chat/completions": { status: 500, contentType: "application/json", body: JSON.stringify(failure) },
  };
  await say("y");
  await page.waitForSelector("#error:not([hidden])");
  check("an error in words", (await text("#error")) === "all is lost");
  canned = {
    "/v1/chat/completions": {
      contentType: "text/event-stream",
      body: `data: ${JSON.stringify(failure)}\n\n`,
    },
  };
  await press("New chat");
  await say("z");
  await page.waitForFunction("document.querySelector('#error').innerText === 'all is lost'");
  const lock = {
    status: 401,
    contentType: "application/json",
    body: JSON.stringify({ error: { message: "a key" } }),
  };
  canned = { "/v1/chat/completions": lock };
  await press("New chat");
  await say("z");
  await page.waitForFunction("document.activeElement.id === 'key'");
  canned = {};

  await press("New chat");
  await page.evaluate("document.querySelector('#max_tokens').value = 450");
  await say("Tell me of Lily. And of Tom. And of all their friends.");
  await page.waitForSelector("article.assistant .text > *");
  await page.evaluate("document.querySelector('#stop').click()");
  await idle();
  check("what came stays when it is stopped", (await text("article.assistant .text")).length > 0);

  const nameless = await page.$$eval("button, input, textarea, summary", (all) =>
    all
      .filter((element) => !(element.ariaLabel || element.innerText?.trim() || element.labels?.length))
      .map((element) => element.outerHTML),
  );
  check(`names on everything: ${nameless}`, nameless.length === 0);
  for (const value of ["dark", "light"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
    const low = await page.evaluate(() => {
      const channels = (color) => color.match(/[\d.]+/g).map(Number);
      const light = (color) =>
        channels(color)
          .slice(0, 3)
          .map((c) => c / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
      const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
          const color = getComputedStyle(e).backgroundColor;
          if (channels(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
      };
      const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return [...document.querySelectorAll("h1, h2, p, button, summary, label, span, .text")]
        .filter((e) => e.checkVisibility() && e.innerText.trim())
        .filter((e) => contrast(light(getComputedStyle(e).color), light(behind(e))) < 4.5)
        .map((e) => e.outerHTML.slice(0, 80));
    });
    check(`contrast in ${value}: ${low}`, low.length === 0);
  }
  check(`nothing from elsewhere: ${foreign}`, foreign.length === 0);
  check(`no errors: ${errors}`, errors.length === 0);
  await browser.close();
  process.exit(failed ? 1 : 0);
}

main().catch((error) => {
  console.log(error.stack);
  process.exit(1);
});
