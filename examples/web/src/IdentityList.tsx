import { useEffect } from 'react'
import type { Identities } from './identities'
import { IdentityCard } from './IdentityCard'
import { useIdentities } from './useIdentities'

type Props = { identities: Identities; onSessionEnd: () => Promise<void> }

/** All identities of the user, as they are now. */
export function IdentityList({ identities, onSessionEnd }: Props) {
  const { rows, refused } = useIdentities(identities)
  useEffect(() => { if (refused?.reason === 'session') void onSessionEnd() }, [refused, onSessionEnd])
  return (
    <section aria-labelledby="list">
      <h2 id="list">Your identities</h2>
      <p role="alert" className="problems">{refused && `${refused.message} The list may be out of date.`}</p>
      {rows?.length === 0 && <p>There is none yet.</p>}
      <ul className="list" aria-busy={!rows}>
        {rows?.map((row) => <IdentityCard key={row.id} row={row} identities={identities} />)}
      </ul>
    </section>
  )
}
