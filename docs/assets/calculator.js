// The speedup calculator: shows the form, works out what its numbers promise, and draws the speedup by draft
// length. The numbers stand in the address. Without this script the form stays hidden and the page's tables say it.
// The formulas are those of accelgen/measuring/speedup.py, in the same order, and a test compares the two.
(() => {
  const LARGEST = 64 // the longest draft that is tried

  // ---- the formulas: `acceptance` is one chance for all places, or a list with one for each ----

  function expectedTokens(acceptance, gamma) {
    let tokens = 1
    for (let i = gamma - 1; i >= 0; i--) tokens = 1 + (Array.isArray(acceptance) ? acceptance[i] : acceptance) * tokens
    return tokens
  }

  const passCost = (tokens, batch, ridge) => Math.max(1, (batch * tokens) / ridge)
  const verification = (tokens, batch, ridge) => passCost(tokens, batch, ridge) / passCost(1, batch, ridge)

  function speedup({ acceptance, c, batch, ridge }, gamma) {
    return expectedTokens(acceptance, gamma) / (gamma * c + verification(gamma + 1, batch, ridge))
  }

  const operations = (acceptance, gamma) => (gamma + 1) / expectedTokens(acceptance, gamma)
  const longest = (acceptance) => (Array.isArray(acceptance) ? Math.min(acceptance.length, LARGEST) : LARGEST)

  function bestGamma(values) {
    let best = 0
    for (let gamma = 1; gamma <= longest(values.acceptance); gamma++) if (speedup(values, gamma) > speedup(values, best)) best = gamma
    return best
  }

  // ---- what was typed: a value, or a sentence that says what is wrong with it ----

  const number = (text) => (text.trim() === "" ? NaN : Number(text))

  function within(text, low, high, whole) {
    const value = number(text)
    if (value >= low && value <= high && (!whole || Number.isInteger(value))) return { value }
    return { wrong: `Enter a ${whole ? "whole " : ""}number from ${low} to ${high.toLocaleString("en")}.` }
  }

  const FIELDS = {
    acceptance(text) {
      const parts = text.split(/[,;\s]+/).filter(Boolean)
      const off = parts.find((part) => !(number(part) >= 0 && number(part) <= 1))
      if (off !== undefined) return { wrong: `“${off}” is no chance from 0 to 1. Write 0.8 with a point; a comma parts places.` }
      if (!parts.length) return { wrong: "Enter a chance from 0 to 1, or one for each place." }
      if (parts.length > LARGEST) return { wrong: `Enter at most ${LARGEST} places.` }
      return { value: parts.length > 1 ? parts.map(Number) : Number(parts[0]) }
    },
    gamma: (text) => within(text, 0, LARGEST, true),
    c: (text) => within(text, 0, 100),
    batch: (text) => within(text, 1, 1e6, true),
    ridge: (text) => (text.trim() === "" ? { value: Infinity } : within(text, 1, 1e6)),
  }

  /** The values of all fields, and what is wrong by field; nothing is worked out while anything is wrong. */
  function read(texts) {
    const values = {}
    const wrong = {}
    for (const [name, check] of Object.entries(FIELDS)) {
      const found = check(texts[name] ?? "")
      if (found.wrong) wrong[name] = found.wrong
      else values[name] = found.value
    }
    const places = values.acceptance?.length
    if (values.gamma > places) wrong.gamma = `There are chances for ${places} places, so a draft can have ${places} guesses at most.`
    return { values, wrong }
  }

  // ---- the page ----

  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties)
    made.append(...children)
    return made
  }
  const shape = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag)
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
    made.append(...children)
    return made
  }
  const two = (value) => value.toFixed(2)
  const guesses = (gamma) => `${gamma} ${gamma === 1 ? "guess" : "guesses"}`

  function verdict(values, best) {
    const gain = speedup(values, values.gamma)
    const chosen = gain < 1 ? `${two(gain)} times as fast as plain decoding, so slower` : `${two(gain)} times as fast as plain decoding`
    if (best === 0) return `With ${guesses(values.gamma)}: ${chosen}. No draft length beats plain decoding.`
    const most = Array.isArray(values.acceptance) ? " More might be better, but you gave no more places." : " More were not tried."
    const end = best === longest(values.acceptance) ? most : ""
    if (best === values.gamma) return `With ${guesses(best)}: ${chosen}. No other draft length is better.${end}`
    return `With ${guesses(values.gamma)}: ${chosen}. Best: ${guesses(best)}, ${two(speedup(values, best))} times.${end}`
  }

  function figures(values, best) {
    const { acceptance, gamma, c, batch, ridge } = values
    const check = verification(gamma + 1, batch, ridge)
    return [
      ["Tokens a pass, n", two(expectedTokens(acceptance, gamma))],
      ["Check, r", two(check)],
      ["Draft and check, γc + r", two(gamma * c + check)],
      ["Speedup, S", two(speedup(values, gamma))],
      ["Best draft length", `${best} (${two(speedup(values, best))})`],
      ["Target's arithmetic a token", `× ${two(operations(acceptance, gamma))}`],
    ]
  }

  /** Speedup by draft length, far enough to show the chosen and the best; 420 by 230 units. */
  function curve(values, best) {
    const last = Math.min(longest(values.acceptance), Math.max(12, values.gamma + 2, best + 2))
    const points = Array.from({ length: last + 1 }, (_, gamma) => [gamma, speedup(values, gamma)])
    const top = Math.max(1.2, ...points.map(([, gain]) => gain)) * 1.12
    const x = (gamma) => 34 + (gamma / Math.max(1, last)) * 372
    const y = (gain) => 194 - (gain / top) * 176
    const word = (at, line, text, kind, anchor = "middle") => shape("text", { x: at, y: line, class: kind, "text-anchor": anchor }, text)
    const label = (gamma, below, text, kind) => {
      const at = x(gamma)
      return word(at, y(speedup(values, gamma)) + (below ? 22 : -11), text, kind, at < 90 ? "start" : at > 340 ? "end" : "middle")
    }
    const round = [0.2, 0.5, 1, 2, 5, 10, 20].find((step) => top / step <= 5) ?? 50
    const ticks = Array.from({ length: Math.floor(top / round) + 1 }, (_, i) => i * round)
    const every = Math.ceil(last / 16)
    const about = `Speedup by draft length. ${verdict(values, best)}`
    const parts = [
      ...ticks.flatMap((gain) => [
        shape("path", { class: "fig__grid", d: `M34 ${y(gain)}H406` }),
        word(28, y(gain) + 4, `${+gain.toFixed(1)}`, "fig__soft", "end"),
      ]),
      ...points.filter(([gamma]) => gamma % every === 0).map(([gamma]) => word(x(gamma), 212, gamma, "fig__soft")),
      word(220, 229, "guesses a draft", "fig__soft"),
      shape("path", { class: "fig__line fig__line--bad", d: `M34 ${y(1)}H406` }),
      shape("path", { class: "fig__line fig__line--good", d: `M${points.map(([gamma, gain]) => `${x(gamma)} ${y(gain)}`).join("L")}` }),
      ...points.map(([gamma, gain]) => shape("circle", { class: "fig__good", cx: x(gamma), cy: y(gain), r: 2 })),
      shape("path", { class: "fig__turn", d: `M${x(values.gamma)} ${y(speedup(values, values.gamma)) - 7}l7 7l-7 7l-7 -7z` }),
      shape("circle", { class: "calc__best", cx: x(best), cy: y(speedup(values, best)), r: 6 }),
    ]
    if (best === values.gamma) parts.push(label(best, false, `γ = ${best}, the best`, "fig__good"))
    else parts.push(label(best, false, `best: γ = ${best}`, "fig__good"), label(values.gamma, true, `γ = ${values.gamma}`, "fig__turn"))
    return [shape("svg", { viewBox: "0 0 420 234", role: "img", "aria-label": about }, ...parts), points]
  }

  function data(values, points) {
    const row = (cells, tag = "td") => make("tr", {}, ...cells.map((text) => make(tag, { textContent: text })))
    const rows = points.map(([gamma, gain]) =>
      row([gamma, two(expectedTokens(values.acceptance, gamma)), two(gamma * values.c + verification(gamma + 1, values.batch, values.ridge)), two(gain)]),
    )
    const head = row(["γ", "n", "γc + r", "S"], "th")
    return make("details", {}, make("summary", { textContent: "The curve as a table" }), make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)))
  }

  function calculator(form) {
    const names = Object.keys(FIELDS)
    const answer = form.parentElement.querySelector(".calc__answer")
    const says = form.querySelector("output")

    function show() {
      const { values, wrong } = read(Object.fromEntries(names.map((name) => [name, form.elements[name].value])))
      for (const name of names) {
        const field = form.elements[name]
        document.getElementById(`calc-${name}-wrong`).textContent = wrong[name] ?? ""
        if (wrong[name]) field.ariaInvalid = "true"
        else field.removeAttribute("aria-invalid")
      }
      const off = Object.keys(wrong).length > 0
      answer.classList.toggle("calc__answer--off", off) // keeps its place, so that nothing jumps while one types
      if (off) {
        says.value = "Nothing is worked out before every entry makes sense."
        return
      }
      const best = bestGamma(values)
      const open = answer.querySelector("details")?.open ?? false
      const [drawn, points] = curve(values, best)
      const list = make("dl", {}, ...figures(values, best).map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))))
      answer.replaceChildren(list, make("figure", { className: "fig" }, drawn, make("figcaption", { textContent: "Diamond: the draft length you chose. Ring: the best. Dotted: plain decoding." })), data(values, points))
      answer.querySelector("details").open = open
      says.value = verdict(values, best)
    }

    function changed() {
      const state = new URLSearchParams()
      for (const name of names) if (form.elements[name].value !== form.elements[name].defaultValue) state.set(name, form.elements[name].value)
      history.replaceState(history.state, "", `${location.pathname}${state.size ? `?${state}` : ""}${location.hash}`)
      show()
    }

    for (const [name, value] of new URLSearchParams(location.search)) if (names.includes(name)) form.elements[name].value = value
    form.oninput = changed
    form.onreset = () => setTimeout(changed) // the fields are reset after this event
    form.onsubmit = (event) => event.preventDefault()
    form.onclick = ({ target }) => {
      if (target.dataset?.ridge === undefined) return
      form.elements.ridge.value = target.dataset.ridge
      changed()
    }
    form.hidden = false
    show()
  }

  globalThis.speedupCalculator = { bestGamma, calculator, expectedTokens, operations, passCost, read, speedup, verification }
  // the theme's stream of pages; it also fires after a page is swapped in place
  globalThis.document$?.subscribe(() => document.querySelectorAll("form.calc__form[hidden]").forEach(calculator))
})()
