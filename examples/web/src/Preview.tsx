import { useEffect, useRef } from 'react'

const SIDE = 160 // pixels
let last = Promise.resolve() // one after the other: a large photo takes a hundred megabytes while it is decoded

/** A small picture of a chosen photo; nothing for what the browser cannot decode. */
export function Preview({ file }: { file: File }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => {
    let gone = false
    const draw = async () => {
      if (gone) return
      const picture = await createImageBitmap(file, { resizeWidth: SIDE, resizeQuality: 'low' })
      const context = canvas.current?.getContext('2d')
      if (canvas.current) canvas.current.height = Math.min((SIDE * picture.height) / picture.width, 2 * SIDE)
      context?.drawImage(picture, 0, 0)
      picture.close()
    }
    last = last.then(draw).catch(() => undefined)
    return () => { gone = true }
  }, [file])
  return <canvas ref={canvas} width={SIDE} height={SIDE} role="img" aria-label={file.name} />
}
