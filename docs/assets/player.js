// <trace-player> replays recorded runs step by step. Its data stand beside it as JSON in a <template>, written by
// accelgen/site/trace_html.py from what the tested code did, and so does the same run as text, whose place
// it takes; without this script the text stays. It never starts to play by itself.
(() => {
  if (customElements.get("trace-player")) return

  const STEP = { emitted: [], drafted: [], parents: [], kept: 0, passes: 1, draft_passes: 0, layers: [], work: 0, canvas: [], masked: [] }
  const BEAT = 900 // milliseconds between two frames at speed 1
  const MOVES = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }
  const ICONS = { back: "M15 5v14L6 12zM4 5h2v14H4z", play: "M7 4v16l13-8z", pause: "M6 5h4v14H6zm8 0h4v14h-4z", forward: "M9 5v14l9-7zM18 5h2v14h-2z" }

  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties)
    made.append(...children)
    return made
  }
  const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`

  // ---- one run: what stands on the stage at each moment ------------------------------------------------------------

  class Stage {
    constructor({ pieces, separator, depth, mask, prompt, steps }) {
      this.pieces = pieces
      this.mask = mask
      this.depth = depth
      this.steps = steps.map((step) => ({ ...STEP, ...step }))
      this.inPlace = this.steps.some((step) => step.canvas.length)
      this.inDepth = Boolean(depth) && this.steps.some((step) => step.layers.length)
      this.frames = this.moments()
      this.words = this.inPlace ? [] : this.steps.flatMap((step) => this.emitted(step))
      this.bars = this.inDepth ? this.steps.flatMap((step) => step.layers).map((layers) => this.bar(layers)) : []
      const start = prompt.map((token) => pieces[token]).join(separator)
      const text = make("div", { className: "trace__text", tabIndex: 0 }, make("span", { className: "t__prompt", title: "prompt" }, ...this.spell(start, true)), ...this.words.flatMap((word) => [separator, word]))
      this.counts = make("dl", { className: "player__counts" })
      this.says = make("p", { className: "player__says", ariaLive: "polite" })
      this.scene = make("div", { className: "player__scene", tabIndex: 0, role: "group", ariaLabel: "This step" })
      this.element = make("div", { className: "player__stage" }, this.counts, text, this.says, this.scene)
    }

    // A step is one moment, or two where something is guessed or masked first. `at` is the time in target passes.
    moments() {
      const found = [{ at: 0, passes: 0, drafts: 0, tokens: 0 }]
      const add = (at, frame) => found.push({ ...found.at(-1), ...frame, at: Math.max(at, found.at(-1).at + 0.001) })
      this.steps.forEach((step, number) => {
        const { passes, drafts, tokens } = found.at(-1)
        const next = { step, number: number + 1, drafts: drafts + step.draft_passes }
        if (step.masked.length || (step.drafted.length && !this.inPlace)) add(passes + 0.5, { ...next, open: true })
        add(passes + step.passes, { ...next, open: false, passes: passes + step.passes, tokens: tokens + step.emitted.length })
      })
      return found
    }

    spell(text, inline = false) {
      const sign = (mark) => make("span", { className: "t__nl" }, mark)
      if (!text) return [sign("∅")]
      return text.split("\n").flatMap((part, i) => (i ? [sign("↵"), inline ? `\n${part}` : part] : [part]))
    }

    token(token, kind, title = "", { tag = "span", inline = false } = {}) {
      return make(tag, { className: `t t--${kind}`, title }, ...this.spell(this.pieces[token], inline))
    }

    own(step) {
      return step.drafted.length > step.kept ? "corrected" : "plain"
    }

    emitted(step) {
      return step.emitted.map((token, i) => {
        if (!this.inDepth) return this.token(token, i < step.kept ? "accepted" : this.own(step), "", { inline: true })
        const made = this.token(token, "depth", `${step.layers[i]} of ${this.depth} layers`, { inline: true })
        made.style.setProperty("--share", step.layers[i] / this.depth)
        return made
      })
    }

    bar(layers) {
      const made = make("li", { title: `${layers} of ${this.depth} layers` })
      made.style.setProperty("--share", layers / this.depth)
      return made
    }

    show(time) {
      const index = this.frames.findLastIndex((frame) => frame.at <= time + 1e-6)
      if (index === this.index) return
      this.index = index
      const frame = this.frames[index]
      const since = frame.tokens - (frame.step && !frame.open ? frame.step.emitted.length : 0)
      for (const [i, word] of [...this.words.entries(), ...this.bars.entries()]) {
        word.classList.toggle("player__later", i >= frame.tokens)
        word.classList.toggle("player__new", i >= since && i < frame.tokens)
      }
      this.says.textContent = this.sentence(frame)
      this.counts.replaceChildren(...this.figures(frame))
      this.scene.replaceChildren(...this.picture(frame))
      this.scene.style.minHeight = `${this.scene.offsetHeight}px` // what follows moves down once and stays
    }

    figures({ passes, drafts, tokens }) {
      const found = { "target passes": passes, [this.inPlace ? "final tokens" : "tokens"]: tokens }
      if (this.frames.at(-1).drafts) found["draft passes"] = drafts
      if (this.inDepth) {
        const layers = this.steps.flatMap((step) => step.layers).slice(0, tokens)
        found["layers a token"] = layers.length ? (layers.reduce((a, b) => a + b) / layers.length).toFixed(1) : "–"
      } else if (!this.inPlace) found["tokens a pass"] = passes ? (tokens / passes).toFixed(2) : "–"
      return Object.entries(found).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, `${value}`)))
    }

    sentence({ step, number, open, tokens }) {
      if (!step) return "The prompt alone; nothing is generated yet."
      const guesses = step.drafted.length
      if (this.inPlace) {
        const places = step.canvas.length
        if (open) return `Pass ${number}: ${step.masked.length} of ${count(places, "place")} masked.`
        const changed = step.canvas.filter((_, i) => this.isNew(step, number, i)).length
        const final = tokens === places ? "; all are final" : tokens ? `; ${tokens} are final` : ""
        return number > 1 ? `Pass ${number}: ${changed} of ${count(places, "place")} changed${final}.` : `Pass 1 writes ${count(places, "place")}${final}.`
      }
      if (open) {
        const cost = step.draft_passes ? `, drawn up in ${count(step.draft_passes, "draft pass", "draft passes")}` : ""
        return `Step ${number}, draft: ${count(guesses, "guess", "guesses")}${step.parents.length ? " in a tree" : ""}${cost}.`
      }
      if (guesses) {
        const own = step.emitted.length > step.kept
        const more = !own ? "" : this.own(step) === "plain" ? ", and the target adds its own token" : ", then the target's own token"
        return `Step ${number}, verify: ${step.kept} of ${guesses} kept${more}.`
      }
      if (this.inDepth && step.layers.length) return `Token ${tokens}: ${step.layers.at(-1)} of ${this.depth} layers.`
      return `Step ${number}: ${count(step.emitted.length, "token")} of the target's own.`
    }

    picture({ step, number, open, tokens }) {
      if (!step) return []
      if (this.inPlace) return [this.canvas(step, number, open, tokens)]
      const bars = this.inDepth ? [make("ol", { className: "player__bars" }, ...this.bars)] : []
      if (step.parents.length) return [this.tree(step, open), ...bars]
      return step.drafted.length ? [this.chain(step, open), ...bars] : bars
    }

    // ---- a draft: a chain with the verdict below each guess, or a tree that grows to the right

    guess(step, i, open, isKept) {
      if (open) return this.token(step.drafted[i], "guess", "guess")
      return isKept ? this.token(step.drafted[i], "accepted", "kept") : this.token(step.drafted[i], "rejected", "rejected", { tag: "del" })
    }

    chain(step, open) {
      const places = Math.max(step.drafted.length, open ? 0 : step.emitted.length)
      const items = Array.from({ length: places }, (_, i) => {
        const above = i < step.drafted.length ? this.guess(step, i, open, i < step.kept) : "\u00a0"
        if (open) return make("li", {}, above)
        if (i < step.kept) return make("li", {}, above, "✓")
        return make("li", {}, above, i < step.emitted.length ? this.token(step.emitted[i], this.own(step), "the target's own token") : "✗")
      })
      return make("ol", { className: "player__chain" }, ...items)
    }

    tree(step, open) {
      const path = []
      for (const token of step.emitted.slice(0, step.kept)) {
        path.push(step.drafted.findIndex((other, i) => other === token && step.parents[i] === (path.at(-1) ?? -1)))
      }
      const end = path.at(-1) ?? -1
      const below = (parent) => {
        const items = step.drafted.flatMap((_, i) => {
          if (step.parents[i] !== parent) return []
          const isKept = !open && path.includes(i)
          return [make("li", { className: isKept ? "player__kept" : "" }, this.guess(step, i, open, isKept), ...below(i))]
        })
        if (!open && parent === end) {
          for (const token of step.emitted.slice(step.kept)) {
            items.push(make("li", { className: "player__kept" }, this.token(token, this.own(step), "the target's own token")))
          }
        }
        return items.length ? [make("ul", {}, ...items)] : []
      }
      return make("div", { className: "player__tree" }, ...below(-1))
    }

    // ---- a canvas: which places are masked, new, filled as before, or final

    before(number) {
      return this.steps[number - 2]?.canvas ?? []
    }

    isNew(step, number, i) {
      return step.canvas[i] !== this.before(number)[i]
    }

    canvas(step, number, open, tokens) {
      const masked = new Set(step.masked)
      const spans = step.canvas.flatMap((token, i) => {
        const front = tokens && i === tokens ? [make("span", { className: "player__front", title: "final up to here" }, "┃"), " "] : []
        const shown = open ? this.before(number)[i] : token
        if (shown === this.mask || (open && masked.has(i))) return [...front, make("span", { className: "t t--masked", title: "masked" }, "▢"), " "]
        const kind = open ? "same" : this.isNew(step, number, i) ? "changed" : masked.has(i) ? "again" : "same"
        return [...front, this.token(shown, kind, `place ${i + 1}`), " "]
      })
      return make("div", { className: "player__canvas" }, ...spans)
    }
  }

  // ---- the element: controls over one stage, or over two with a choice of methods ----------------------------------

  class TracePlayer extends HTMLElement {
    connectedCallback() {
      const source = this.parentElement.querySelector(":scope > template")
      if (!source) return // built before; the element was only moved
      this.data = JSON.parse(source.content.textContent)
      for (const other of [...this.parentElement.children]) if (other !== this) other.remove()
      this.place = make("div", { className: "player__stages" })
      this.speed = make("select", { ariaLabel: "Speed" }, ...["0.5", "1", "2", "4"].map((n) => make("option", { value: n, selected: n === "1" }, `${n}×`)))
      this.speed.onchange = () => this.timer && this.play()
      const bar = this.controls()
      this.replaceChildren(...(this.data.methods ? [this.choices()] : []), bar, this.place)
      if (this.data.methods) this.choose()
      else this.set([new Stage(this.data)])
      this.closest("figure").querySelector("details[open]")?.removeAttribute("open")
    }

    disconnectedCallback() {
      this.pause()
    }

    controls() {
      const button = (name, label, act) => {
        const made = make("button", { type: "button", onclick: act })
        this.draw(made, name, label)
        return made
      }
      this.slider = make("input", { type: "range", min: 0, ariaLabel: "Moment" })
      this.slider.oninput = () => this.step(this.slider.valueAsNumber - this.now)
      this.toggle = button("play", "Play", () => (this.timer ? this.pause() : this.play()))
      const back = button("back", "Step back", () => this.step(-1))
      const forward = button("forward", "Step forward", () => this.step(1))
      const bar = make("div", { className: "player__bar", role: "group", ariaLabel: "Replay" }, back, this.toggle, forward, this.slider, this.speed)
      bar.onkeydown = (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey || event.target === this.speed) return
        if (event.key in MOVES) this.step(MOVES[event.key])
        else if (event.key === " " && event.target === this.slider) this.toggle.click()
        else return
        event.preventDefault()
      }
      return bar
    }

    draw(button, name, label) {
      button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`
      button.ariaLabel = button.title = label
    }

    set(stages) {
      this.pause()
      this.stages = stages
      this.place.replaceChildren(...stages.map((stage) => stage.element))
      this.times = [...new Set(stages.flatMap((stage) => stage.frames.map((frame) => frame.at)))].sort((a, b) => a - b)
      this.slider.max = this.times.length - 1
      this.go(Infinity)
    }

    go(index) {
      this.now = Math.min(Math.max(index, 0), this.times.length - 1)
      for (const stage of this.stages) stage.show(this.times[this.now])
      this.slider.value = this.now
      const passes = count(Math.floor(this.times[this.now]), "target pass", "target passes")
      this.slider.setAttribute("aria-valuetext", this.stages.length > 1 ? passes : this.stages[0].says.textContent)
    }

    step(by) {
      this.pause()
      this.go(this.now + by)
    }

    play() {
      this.pause()
      if (this.now === this.times.length - 1) this.go(0)
      for (const stage of this.stages) stage.says.ariaLive = "off" // a reader of screens hears steps, not a film
      this.draw(this.toggle, "pause", "Pause")
      this.timer = setInterval(() => {
        this.go(this.now + 1)
        if (this.now === this.times.length - 1) this.pause()
      }, BEAT / Number(this.speed.value))
    }

    pause() {
      if (!this.timer) return
      clearInterval(this.timer)
      this.timer = undefined
      for (const stage of this.stages) stage.says.ariaLive = "polite"
      this.draw(this.toggle, "play", "Play")
    }

    // Two methods: what the reader chose stands in the address.
    choices() {
      const { methods, runs, shown } = this.data
      const state = new URLSearchParams(location.search)
      const select = (name, label, fallback, ...options) => {
        const made = make("select", { name }, ...options)
        made.value = state.get(name) ?? fallback
        if (made.selectedIndex < 0) made.value = fallback // an address that names what is not there
        made.onchange = () => {
          for (const { name, value } of this.chosen) state.set(name, value)
          try {
            history.replaceState(history.state, "", `?${state}${location.hash}`)
          } catch {} // a browser may forbid it for pages on disk
          this.choose()
        }
        return [make("label", {}, label, made), made]
      }
      const families = [...new Set(Object.values(methods).map((method) => method.family))]
      const named = (label) => Object.entries(methods).flatMap(([value, { name, family }]) => (family === label ? [make("option", { value }, name)] : []))
      const list = () => families.map((label) => make("optgroup", { label }, ...named(label)))
      const [left, first] = select("left", "Left", shown[0], ...list())
      const [right, second] = select("right", "Right", shown[1], ...list())
      const [run, title] = select("run", "Run", runs[0], ...runs.map((value) => make("option", { value }, value)))
      this.chosen = [first, second, title]
      return make("div", { className: "player__choices" }, left, right, run)
    }

    choose() {
      const { methods, runs } = this.data
      const [first, second, title] = this.chosen
      const number = runs.indexOf(title.value)
      const stages = [first, second].map(({ value }) => {
        const { name, href, steps } = methods[value]
        const stage = new Stage({ ...this.data, steps: steps[number] })
        stage.element.prepend(make("p", { className: "player__name" }, href ? make("a", { href }, name) : name))
        return stage
      })
      this.set(stages)
    }
  }

  customElements.define("trace-player", TracePlayer)
})()
