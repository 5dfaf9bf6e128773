/** Finds an element of the page; the build is broken where it is not there. */
export function find<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element #${id}`);
  return found as T;
}

/** Shows or hides an element. */
export function show(element: HTMLElement, shown: boolean): void {
  element.hidden = !shown;
}

/** Sets a text, and touches the page only where it differs. */
export function write(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Addresses of pictures in memory, one for each, until they are let go. */
export class Pictures {
  readonly #urls = new Map<Uint8Array, string>();

  url(jpeg: Uint8Array): string {
    let url = this.#urls.get(jpeg);
    if (url === undefined) {
      url = URL.createObjectURL(new Blob([jpeg as Uint8Array<ArrayBuffer>], { type: "image/jpeg" }));
      this.#urls.set(jpeg, url);
    }
    return url;
  }

  /** Lets go of all pictures but these. */
  keepOnly(kept: ReadonlySet<Uint8Array>): void {
    for (const [jpeg, url] of this.#urls) {
      if (kept.has(jpeg)) continue;
      URL.revokeObjectURL(url);
      this.#urls.delete(jpeg);
    }
  }
}

/** Shows a picture in an element. */
export function picture(element: HTMLImageElement, url: string): void {
  if (element.getAttribute("src") !== url) element.src = url;
}
