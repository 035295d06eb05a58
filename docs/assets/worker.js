/* The search runs in a worker, which browsers refuse to pages that are opened as files. There, and only there, a hidden frame
   takes its place: it runs the worker's script, and messages go to and fro by events. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inner = (this.inner = frame.contentWindow)
      inner.postMessage = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      inner.importScripts = (...places) =>
        places.reduce((before, place) => before.then(() => this.load(new URL(place, address))), Promise.resolve())
      this.load(new URL(address, location)).then(() => {
        const said = this.waiting
        this.waiting = null
        said.forEach(data => this.postMessage(data))
      })
    }
    load(place) {
      return new Promise((done, failed) => {
        const script = this.inner.document.createElement("script")
        Object.assign(script, { src: place.href, onload: done, onerror: failed })
        this.inner.document.documentElement.append(script)
      })
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data)
      else this.inner.dispatchEvent(new MessageEvent("message", { data }))
    }
    terminate() {
      this.inner.frameElement.remove()
    }
  }
